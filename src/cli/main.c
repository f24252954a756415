/* marble: the command line. */
#include "base/log.h"
#include "base/screen.h"
#include "base/streams.h"
#include "base/suggest.h"
#include "base/version.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/memory_limit.h"
#include "cli/pages.h"
#include "comm/comm.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
    bool answers;
} commands[] = {
#define COMMAND(name, summary, answers) {#name, summary, mbl_cmd_##name, answers},
    MBL_COMMANDS(COMMAND)
#undef COMMAND
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(void) {
    printf("usage: marble COMMAND [options]\n\n"
           "Fine-tunes flow-matching image models on several rewards at once.\n\ncommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    printf("\nmarble COMMAND --help describes a command; marble --version prints the version;\n"
           "marble --man [COMMAND] is a manual page, marble --completion bash|zsh a script for the shell.\n"
           "exit codes: 0 done, 1 failed, 2 bad usage or configuration, 71 the device failed, 75 stopped "
           "with a checkpoint, resumable\n");
}

/* The exit code of a command that did what it was asked: 1 if what it printed did not arrive. */
static int printed(const char *name, int code) {
    return code == 0 ? mbl_status_exit_code(mbl_args_printed(name)) : code;
}

static int run_command(const char *name, int argc, char **argv) {
    char hint[MBL_SUGGESTED];
    const char *best = NULL;
    size_t distance = 0;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            mbl_screen_t screen;
            (void)mbl_screen_open(&screen);
            int code = commands[i].run(argc, argv);
            mbl_screen_close(&screen);
            if (code == 1)
                mbl_memory_limit_explain();
            return commands[i].answers ? printed(name, code) : code;
        }
        mbl_suggest(name, commands[i].name, &best, &distance);
    }
    return mbl_status_exit_code(MBL_FAIL(MBL_ERR_USAGE,
                                         "\"%.60s\": no such command%s; marble --help lists them", name,
                                         mbl_suggested("", best, hint)));
}

/* marble --man [COMMAND], marble --completion SHELL; false for anything else. */
static bool print_page(int argc, char **argv, int *code) {
    mbl_page_command_t pages[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++)
        pages[i] = (mbl_page_command_t){commands[i].name, commands[i].summary, commands[i].run};
    if (argc == 3 && strcmp(argv[1], "--completion") == 0)
        *code = printed("completion", mbl_page_completion(argv[2], pages, N_COMMANDS));
    else if (argc == 2 && strcmp(argv[1], "--man") == 0) {
        mbl_page_man(pages, N_COMMANDS);
        *code = printed("man", 0);
    } else if (argc == 3 && strcmp(argv[1], "--man") == 0) {
        char option[] = "--help-man";
        char *asked[] = {argv[2], option, NULL};
        *code = run_command(argv[2], 2, asked);
    } else
        return false;
    return true;
}

/* Threads that wait for each other at full speed lose everything when another process wants their core (a
 * training step took twenty times as long). OpenMP reads how long to wait at program start only, so unless
 * the user has said so, the program says it and starts itself once more. */
static void wait_politely(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0)
        execv("/proc/self/exe", argv); /* on failure the program goes on as it is */
}

/* NCCL's sums in the switch (NVLS) have no fixed order, so a run would not repeat to the bit. Said before
 * there are other threads; what the user has said stays. */
static void repeat_sums(void) {
    (void)setenv("NCCL_ALGO", "^NVLS,NVLSTree", 0); /* on failure the run goes on */
}

int main(int argc, char **argv) {
    int rank = 0;
    mbl_streams_open();
    repeat_sums();
    wait_politely(argv);
    mbl_memory_limit_watch();
    int size = mbl_comm_launched(&rank, NULL);
    mbl_log_set_rank(rank, size);
    const char *word = argc > 1 ? argv[1] : "help";
    if (strcmp(word, "--version") == 0) {
        printf("marble %s%s%s%s\n", mbl_version(), *mbl_commit() ? " (commit " : "", mbl_commit(),
               *mbl_commit() ? ")" : "");
        return printed("version", 0);
    }
    bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
    if (help && argc <= 2) {
        print_help();
        return printed("help", 0);
    }
    if (help) {
        char option[] = "--help";
        char *asked[] = {argv[2], option, NULL};
        return run_command(argv[2], 2, asked);
    }
    int code;
    return print_page(argc, argv, &code) ? code : run_command(word, argc - 1, argv + 1);
}
