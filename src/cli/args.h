/* Options of a command from one table: parsing, errors that say what is expected, and --help. */
#ifndef MBL_CLI_ARGS_H
#define MBL_CLI_ARGS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    MBL_ARG_FLAG,   /* bool: set to true */
    MBL_ARG_TEXT,   /* const char *, into argv */
    MBL_ARG_COUNT,  /* size_t in [low, high] (high 0: no end) */
    MBL_ARG_NUMBER, /* double in [low, high] (both 0: any) */
    MBL_ARG_CHOICE, /* const char *, one of `words` */
    MBL_ARG_OUT, /* const char *, a file to write or another text that may be left out; "-" (standard output,
                    all) when it is the last word or the next one is an option */
    MBL_ARG_TEXTS,  /* mbl_arg_texts_t: may be given again and again */
    MBL_ARG_PHRASES /* the same, and may be empty: no other text, file or operand may */
} mbl_arg_kind_t;

typedef struct {
    const char **items; /* strings of argv, in order; free with mbl_free */
    size_t count;
} mbl_arg_texts_t;

/* One option, `--name VALUE` or `--name=VALUE`. `place` keeps its value (the default) when it is not given.
 */
typedef struct {
    const char *name;
    mbl_arg_kind_t kind;
    void *place;
    const char *value; /* how the value is called in the help, "N", "FILE"; NULL for a flag */
    const char *help;
    bool required;
    double low, high;
    const char *const *words; /* NULL-terminated */
} mbl_arg_t;

/* Of commands that work for long: the bool at `place` goes to mbl_log_set_quiet. */
#define MBL_ARG_QUIET(place)                                                                                 \
    {                                                                                                        \
        "quiet", MBL_ARG_FLAG, place, NULL, "only warnings and the answer: no progress, no messages", 0, 0,  \
            0, NULL                                                                                          \
    }

typedef struct {
    const char *command;  /* "train" */
    const char *operands; /* what else is taken, "RUN.yaml" or "" */
    const char *about;    /* what the command does; lines of at most 100 characters, no newline at the end */
    const mbl_arg_t *args;
    size_t n_args;
    size_t min_operands, max_operands;
} mbl_args_t;

/* That standard output took all that was printed to it; ERR_IO when it did not (a full disk, /dev/full, a
 * closed terminal), with the reason where it is still known. */
mbl_status_t mbl_args_printed(const char *command);

/* argv[0] is the command's name. Sets what the table points at and `rest` (the operands; both it and every
 * MBL_ARG_TEXTS are allocated: mbl_free(rest.items)). ERR_USAGE says what is wrong; nothing is left
 * allocated. *helped: --help was among them and has been printed (ERR_IO where it could not be); the command
 * returns the status and has nothing to free. */
mbl_status_t mbl_args_parse(const mbl_args_t *spec, int argc, char **argv, mbl_arg_texts_t *rest,
                            bool *helped);

#endif
