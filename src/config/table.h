/* Inside of the configuration: the table of keys and how problems are reported. Only config*.c include this.
 */
#ifndef MBL_TRAIN_CONFIG_TABLE_H
#define MBL_TRAIN_CONFIG_TABLE_H

#include "config/config.h"
#include "config/yaml.h"

#include <jansson.h>

typedef enum {
    MBL_FIELD_COUNT,   /* size_t or uint64_t */
    MBL_FIELD_BYTES,   /* size_t; KiB, MiB, GiB allowed */
    MBL_FIELD_NUMBER,  /* double */
    MBL_FIELD_SECONDS, /* double; s, min, h allowed */
    MBL_FIELD_CHOICE,  /* an enum: index into `words` */
    MBL_FIELD_FOLDER,  /* char *, an existing folder, or "" */
    MBL_FIELD_FILE,    /* char *, an existing file, or "" */
    MBL_FIELD_PATH,    /* char *, an existing file or folder, or "" */
    MBL_FIELD_PLACE,   /* char *, one of `words`, or the path of a folder that need not exist */
    MBL_FIELD_TEXT,    /* char *, any printable text, "" too */
    MBL_FIELD_STRINGS, /* mbl_config_strings_t */
    MBL_FIELD_COUNTS,  /* mbl_config_counts_t */
    MBL_FIELD_REWARDS, /* the list of rewards */
    MBL_FIELD_STAGES,  /* the list of stages */
    MBL_FIELD_SOURCES  /* the list of prompt files */
} mbl_field_kind_t;

/* Ends of a range that do not belong to it. */
enum { MBL_FIELD_CLOSED = 0, MBL_FIELD_ABOVE = 1, MBL_FIELD_BELOW = 2, MBL_FIELD_OPEN = 3 };

/* Whole numbers are exact in a double and in JSON up to here; as a `high` it means no upper end. */
#define MBL_FIELD_LARGE 9007199254740992.0

typedef struct {
    const char *key;
    mbl_field_kind_t kind;
    size_t offset;
    const char *fallback; /* as a user would write it; "" for none */
    double low, high;
    int ends;
    const char *unit;         /* or NULL */
    const char *const *words; /* of a choice, NULL-terminated; of a count, what else it may be (or NULL) */
    const char *help;
    const char *const *word_help; /* a line for each of `words`, or NULL */
} mbl_field_t;

/* The whole table, in the order in which it is written out. */
const mbl_field_t *mbl_config_fields(size_t *count);
const mbl_field_t *mbl_config_field(const char *key);
/* The key that a section given as a single value stands for ("checkpoint.keep" for its .last), or NULL. */
const mbl_field_t *mbl_config_shorthand(const char *path);
/* Whether some key lies below `path`; what a section is for ("" when there is nothing to say). */
bool mbl_config_is_section(const char *path);
const char *mbl_config_section_help(const char *path);
/* Planned keys ("balance.rho") and values ("rollout.solver=sde") that this version does not have yet. */
bool mbl_config_is_unsupported(const char *text);
/* A key of earlier versions whose other choices are gone: `kept` is what is always done now, so files that
 * say it are read; `why` says what became of the others. */
typedef struct {
    const char *key, *kept, *why;
} mbl_config_retired_t;
/* The i-th of them, NULL past the end. */
const mbl_config_retired_t *mbl_config_retired(size_t i);
/* The name that a key of an earlier version has now, or `path` itself. */
const char *mbl_config_renamed(const char *path);
extern const char *const mbl_config_on_failure_words[];

/* The value of word i of a count, and the word of a value (NULL: it is a number). */
size_t mbl_config_count_of_word(size_t i);
const char *mbl_config_word_of_count(const mbl_field_t *field, size_t value);

/* "a number in (0, 1], for instance 3.0e-4" into out; returns out. */
char *mbl_config_expected(const mbl_field_t *field, char *out, size_t size);
/* "(0, 1]", "at least 1", "auto | cpu | cuda"; "" where there is no range. */
char *mbl_config_range(const mbl_field_t *field, char *out, size_t size);

struct mbl_config_origin {
    char *file;
    char **sets;
    size_t n_sets;
    int *lines;        /* [fields]: > 0 a line of the file, < 0 minus the number of a --set, 0 the default */
    int *reward_lines; /* [rewards], of their names */
    int *stage_lines;  /* [stages] */
};

/* Collects the problems of one configuration. */
typedef struct {
    const mbl_config_origin_t *origin;
    size_t count;
    char first[1000];
} mbl_config_problems_t;

/* Logs one problem at `line` (see origin.lines; 0: the file as a whole). The first waits, so that a lone one
 * becomes the failure itself. */
void mbl_config_problem(mbl_config_problems_t *problems, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* MBL_OK without problems, else ERR_CONFIG with the failure reported. */
mbl_status_t mbl_config_problems_end(mbl_config_problems_t *problems);

/* Sets every field to its default, then reads the tree over them. ERR_MEM, or MBL_OK with what is wrong in
 * `problems`. */
mbl_status_t mbl_config_defaults(mbl_config_t *config);
mbl_status_t mbl_config_read(mbl_config_t *config, const mbl_yaml_node_t *root,
                             mbl_config_problems_t *problems);
mbl_status_t mbl_config_read_rewards(mbl_config_t *config, const mbl_yaml_node_t *list,
                                     mbl_config_problems_t *problems);
void mbl_config_free_rewards(mbl_config_t *config);
mbl_status_t mbl_config_read_stages(mbl_config_t *config, const mbl_yaml_node_t *list,
                                    mbl_config_problems_t *problems);
void mbl_config_free_stages(mbl_config_t *config);
mbl_status_t mbl_config_read_sources(mbl_config_t *config, const mbl_yaml_node_t *list,
                                     mbl_config_problems_t *problems);
void mbl_config_free_sources(mbl_config_t *config);
/* The keys of a source in the list `prompts.sources`, each with its help; NULL past the end. */
const char *mbl_config_source_key(size_t i, const char **help);
/* Names of rewards and the number of steps. */
void mbl_config_check_stages(const mbl_config_t *config, mbl_config_problems_t *problems);
/* What every method that the run uses, in one stage or all through, goes together with. */
void mbl_config_check_methods(const mbl_config_t *config, mbl_config_problems_t *problems);
/* Keys set to another value than the default that say nothing with these methods (a bit for each), or without
 * a KL term or a limit. */
void mbl_config_check_known(const mbl_config_t *config, unsigned methods, mbl_config_problems_t *problems);
/* Whether a reward has a min. */
bool mbl_config_limited(const mbl_config_t *config);
/* The line that a key of the table was set on, for problems. */
int mbl_config_line(const mbl_config_t *config, const char *key);
/* One value of a node into its place in `base`. */
mbl_status_t mbl_config_read_field(void *base, const mbl_field_t *field, const char *key,
                                   const mbl_yaml_node_t *node, mbl_config_problems_t *problems);
/* A key that a scorer takes, into the JSON of its options; `shown` is the key in messages. */
mbl_status_t mbl_config_read_scorer_key(json_t *options, const mbl_scorer_key_t *key, const char *shown,
                                        const mbl_yaml_node_t *node, mbl_config_problems_t *problems);
/* [low, high], ascending; NULL with a problem noted, or without memory. */
json_t *mbl_config_read_pair(const char *shown, const mbl_yaml_node_t *node, mbl_config_problems_t *problems);
/* A tree as JSON; NULL without memory. */
json_t *mbl_config_node_json(const mbl_yaml_node_t *node);
/* How many leading characters of two keys are whole words they share ("train." of train.lr and train.ema). */
size_t mbl_config_shared_section(const char *a, const char *b);
/* The keys of a reward in the list `rewards`, each with its help; NULL past the end. */
const char *mbl_config_reward_key(size_t i, const char **help);
/* A short printable form of a node's value, in quotes when it is a scalar that is not a number. */
char *mbl_config_shown(const mbl_yaml_node_t *node, char out[80]);
/* False for text with control characters or line breaks. */
bool mbl_config_printable(const char *text);

#endif
