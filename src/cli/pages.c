/* marble.1 and the scripts of completion. */
#include "cli/pages.h"

#include "cli/args_print.h"

#include <stdio.h>
#include <string.h>

void mbl_page_man(const mbl_page_command_t *commands, size_t n) {
    mbl_man_head("marble", "fine-tunes flow-matching image models on several rewards at once");
    puts(".SH SYNOPSIS\n\\fBmarble\\fR \\fICOMMAND\\fR [options]\n.SH DESCRIPTION\nEvery command has a page "
         "of its own, "
         "and \\fBmarble\\fR \\fICOMMAND\\fR \\fB\\-\\-help\\fR says the same.");
    for (size_t i = 0; i < n; i++)
        printf(".TP\n\\fBmarble\\-%s\\fR(1)\n%s\n", commands[i].name, commands[i].summary);
    puts(".SH ENVIRONMENT\n.TP\nOMP_NUM_THREADS\nthreads of a rank\n.TP\nNO_COLOR\nno colours on a "
         "terminal\n.TP\n"
         "MARBLE_TERMINAL\nCOLUMNSxROWS of the terminal that shows standard error, where it is a pipe (under "
         "mpirun)");
    mbl_man_exit();
}

static void print_parts(const char *option, const mbl_page_command_t *commands, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char name[32], flag[32];
        char *asked[] = {name, flag, NULL};
        snprintf(name, sizeof name, "%s", commands[i].name);
        snprintf(flag, sizeof flag, "%s", option);
        (void)commands[i].run(2, asked);
    }
}

static void print_bash(const mbl_page_command_t *commands, size_t n) {
    puts("# bash completion for marble, made by marble --completion bash\n"
         "_marble_keys() {\n"
         "    compopt -o nospace\n"
         "    COMPREPLY=($(compgen -W \"$(\"$1\" train --help-config 2>/dev/null | sed -n 's/^  "
         "\\([a-z][a-z0-9_.]*\\) .*/\\1=/p')\" "
         "-- \"$2\"))\n"
         "}\n"
         "_marble() {\n"
         "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} options=\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < n; i++)
        printf("%s ", commands[i].name);
    puts("--help --version' -- \"$word\"))\n"
         "        return\n"
         "    fi\n"
         "    case ${COMP_WORDS[1]} in");
    print_parts("--help-bash", commands, n);
    puts("    *) return ;;\n"
         "    esac\n"
         "    if [ \"${word#-}\" != \"$word\" ]; then\n"
         "        COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
         "    else\n"
         "        compopt -o filenames\n"
         "        COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "    fi\n"
         "}\n"
         "complete -F _marble marble");
}

static void print_zsh(const mbl_page_command_t *commands, size_t n) {
    puts("#compdef marble\n"
         "# zsh completion for marble, made by marble --completion zsh\n"
         "_marble_keys() {\n"
         "    local -a keys=(${(f)\"$(marble train --help-config 2>/dev/null | sed -n 's/^  "
         "\\([a-z][a-z0-9_.]*\\) .*/\\1/p')\"})\n"
         "    compadd -S = -a keys\n"
         "}\n"
         "_marble() {\n"
         "    if (( CURRENT == 2 )); then\n"
         "        local -a commands=(");
    for (size_t i = 0; i < n; i++)
        printf("            \"%s:%s\"\n", commands[i].name, commands[i].summary);
    puts("        )\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi\n"
         "    local command=$words[2]\n"
         "    shift words\n"
         "    (( CURRENT-- ))\n"
         "    case $command in");
    print_parts("--help-zsh", commands, n);
    puts("    esac\n"
         "}\n"
         "if [ \"$funcstack[1]\" = _marble ]; then _marble \"$@\"; else compdef _marble marble; fi");
}

int mbl_page_completion(const char *shell, const mbl_page_command_t *commands, size_t n) {
    if (strcmp(shell, "bash") == 0)
        print_bash(commands, n);
    else if (strcmp(shell, "zsh") == 0)
        print_zsh(commands, n);
    else
        return mbl_status_exit_code(
            MBL_FAIL(MBL_ERR_USAGE, "--completion: \"%.60s\": expected bash or zsh", shell));
    return 0;
}
