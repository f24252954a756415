/* What a table of options is printed as: help, a manual page, completion for bash and zsh. */
#include "cli/args_print.h"

#include "base/version.h"
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

static bool is_list(const mbl_arg_t *arg) {
    return arg->kind == MBL_ARG_TEXTS || arg->kind == MBL_ARG_PHRASES;
}

void mbl_args_print_help(const mbl_args_t *spec) {
    printf("usage: marble %s%s%s [options]\n\n%s\n\noptions:\n", spec->command, spec->operands[0] ? " " : "",
           spec->operands, spec->about);
    for (size_t i = 0; i < spec->n_args; i++) {
        const mbl_arg_t *arg = &spec->args[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", arg->name, arg->value ? " " : "",
                 arg->value ? arg->value : "");
        printf("  %-24s %s", left, arg->help);
        for (size_t j = 0; arg->words && arg->words[j]; j++)
            printf("%s%s", j ? ", " : ": ", arg->words[j]);
        printf("%s%s\n", is_list(arg) ? " (may be repeated)" : "", arg->required ? " (required)" : "");
    }
    printf("  %-24s %s\n", "--help", "this text");
}

/* ---- manual pages ---- */

/* Text as roff has it, up to the end of its line: minus signs for hyphens, so that options can be copied. */
static void man_text(const char *text, size_t length) {
    if (length > 0 && (*text == '.' || *text == '\''))
        fputs("\\&", stdout);
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\\')
            fputs("\\e", stdout);
        else if (text[i] == '-')
            fputs("\\-", stdout);
        else
            putchar(text[i]);
    }
}

/* Lines of an about: those that begin with blanks are as they are, the others flow. */
static void man_about(const char *text) {
    bool kept = false;
    while (*text) {
        size_t length = strcspn(text, "\n");
        bool keep = *text == ' ';
        if (keep != kept)
            puts(keep ? ".PP\n.nf" : ".fi\n.PP");
        if (length == 0 && !kept)
            puts(".PP");
        man_text(text, length);
        if (length > 0)
            putchar('\n');
        kept = keep;
        text += length + (text[length] == '\n');
    }
    if (kept)
        puts(".fi");
}

static const char *summary_of(const char *command) {
    static const struct {
        const char *name, *summary;
    } commands[] = {
#define COMMAND(name, summary, answers) {#name, summary},
        MBL_COMMANDS(COMMAND)
#undef COMMAND
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, command) == 0)
            return commands[i].summary;
    return "";
}

void mbl_man_head(const char *page, const char *summary) {
    fputs(".TH ", stdout);
    for (const char *c = page; *c; c++)
        putchar(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    printf(" 1 \"\" \"marble %s\" \"marble\"\n.SH NAME\n", mbl_version());
    man_text(page, strlen(page));
    printf(" \\- ");
    man_text(summary, strlen(summary));
    putchar('\n');
}

void mbl_man_exit(void) {
    puts(".SH EXIT STATUS\n0 done, 1 failed, 2 bad usage or configuration, 71 the device failed, 75 stopped "
         "with a "
         "checkpoint and resumable.");
}

static void man_option(const mbl_arg_t *arg) {
    printf(".TP\n\\fB\\-\\-");
    man_text(arg->name, strlen(arg->name));
    printf("\\fR");
    if (arg->value) {
        printf(" \\fI");
        man_text(arg->value, strlen(arg->value));
        printf("\\fR");
    }
    putchar('\n');
    man_text(arg->help, strlen(arg->help));
    for (size_t j = 0; arg->words && arg->words[j]; j++) {
        printf("%s", j ? ", " : ": ");
        man_text(arg->words[j], strlen(arg->words[j]));
    }
    printf("%s%s\n", is_list(arg) ? " (may be repeated)" : "", arg->required ? " (required)" : "");
}

void mbl_args_print_man(const mbl_args_t *spec) {
    char page[64];
    snprintf(page, sizeof page, "marble-%s", spec->command);
    mbl_man_head(page, summary_of(spec->command));
    printf(".SH SYNOPSIS\n\\fBmarble %s\\fR ", spec->command);
    if (spec->operands[0]) {
        printf("\\fI");
        man_text(spec->operands, strlen(spec->operands));
        printf("\\fR ");
    }
    puts("[options]\n.SH DESCRIPTION");
    man_about(spec->about);
    puts(".SH OPTIONS");
    for (size_t i = 0; i < spec->n_args; i++)
        man_option(&spec->args[i]);
    puts(".TP\n\\fB\\-\\-help\\fR\nthe same as text");
    mbl_man_exit();
    puts(".SH SEE ALSO\n\\fBmarble\\fR(1)");
}

/* ---- completion ---- */

typedef enum { NOTHING, FILES, FOLDERS, WORDS, KEYS } values_t;

/* What may stand for an option's value, by what the help calls it. */
static values_t values_of(const mbl_arg_t *arg) {
    const char *value = arg->value ? arg->value : "";
    return arg->words                      ? WORDS
           : strcmp(arg->name, "set") == 0 ? KEYS
           : strcmp(value, "DIR") == 0     ? FOLDERS
           : strstr(value, "FILE") || strstr(value, ".h5") || strstr(value, "safetensors") ||
                   strstr(value, "MODEL")
               ? FILES
               : NOTHING;
}

/* In bash a command is a case: of the word before, then of the options. */
void mbl_args_print_bash(const mbl_args_t *spec) {
    printf("    %s)\n        case $previous in\n", spec->command);
    for (size_t i = 0; i < spec->n_args; i++) {
        const mbl_arg_t *arg = &spec->args[i];
        values_t values = values_of(arg);
        if (arg->kind == MBL_ARG_FLAG)
            continue;
        printf("        --%s) ", arg->name);
        if (values == WORDS) {
            printf("COMPREPLY=($(compgen -W '");
            for (size_t j = 0; arg->words[j]; j++)
                printf("%s%s", j ? " " : "", arg->words[j]);
            printf("' -- \"$word\")); ");
        } else if (values != NOTHING) {
            printf("%s; ", values == KEYS ? "_marble_keys \"$1\" \"$word\""
                           : values == FILES
                               ? "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\"))"
                               : "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\"))");
        }
        puts("return ;;");
    }
    printf("        esac\n        options='");
    for (size_t i = 0; i < spec->n_args; i++)
        printf("--%s ", spec->args[i].name);
    puts("--help' ;;");
}

/* Within single quotes and the brackets and colons of _arguments. */
static void zsh_text(const char *text) {
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            printf(strchr("[]:\\", *text) ? "\\%c" : "%c", *text);
    }
}

void mbl_args_print_zsh(const mbl_args_t *spec) {
    printf("    %s)\n        _arguments \\\n", spec->command);
    for (size_t i = 0; i < spec->n_args; i++) {
        const mbl_arg_t *arg = &spec->args[i];
        values_t values = values_of(arg);
        printf("            '%s--%s[", is_list(arg) ? "*" : "", arg->name);
        zsh_text(arg->help);
        putchar(']');
        if (arg->kind != MBL_ARG_FLAG) {
            putchar(':');
            zsh_text(arg->value);
            printf(":%s", values == FILES     ? "_files"
                          : values == FOLDERS ? "_files -/"
                          : values == KEYS    ? "_marble_keys"
                          : values == WORDS   ? "("
                                              : " ");
            for (size_t j = 0; values == WORDS && arg->words[j]; j++)
                printf("%s%s", j ? " " : "", arg->words[j]);
            if (values == WORDS)
                putchar(')');
        }
        puts("' \\");
    }
    puts("            '--help[this text]' '*:file:_files' ;;");
}
