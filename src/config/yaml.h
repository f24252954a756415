/* YAML text into a tree of nodes with line numbers, with limits that hostile input cannot pass.
 * libyaml's events are used directly and not libcyaml: that has no ranges for floats, no units, and no line
 * number per value, and the messages of the configuration need all three. */
#ifndef MBL_TRAIN_YAML_H
#define MBL_TRAIN_YAML_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { MBL_YAML_MAX_BYTES = 1 << 20, MBL_YAML_MAX_DEPTH = 16 };

typedef enum { MBL_YAML_SCALAR, MBL_YAML_LIST, MBL_YAML_MAP } mbl_yaml_kind_t;

typedef struct mbl_yaml_node mbl_yaml_node_t;
struct mbl_yaml_node {
    mbl_yaml_kind_t kind;
    int line;     /* 1-based; what the caller gave instead when that was not 0 */
    bool quoted;  /* a scalar written in quotes or as a block: a string whatever it looks like */
    char *key;    /* inside a mapping, else NULL */
    int key_line; /* of the key */
    char *text;   /* a scalar's value */
    mbl_yaml_node_t *first, *last, *next; /* children and the next sibling */
};

/* What went wrong in a text, for a caller that words its own message. */
typedef struct {
    int line;
    char text[200];
} mbl_yaml_problem_t;

/* One document; *out is NULL for an empty one. A non-zero `line` is given to every node (text that is not
 * from a file). ERR_FORMAT fills *problem and reports nothing; ERR_MEM is reported. Free with mbl_yaml_free.
 */
mbl_status_t mbl_yaml_parse(const char *text, size_t size, int line, mbl_yaml_node_t **out,
                            mbl_yaml_problem_t *problem);
/* Words a problem of this text so that it says what to change, where the parser's own words do not. */
void mbl_yaml_words(const char *text, size_t size, mbl_yaml_problem_t *problem);
void mbl_yaml_free(mbl_yaml_node_t *node);

/* A fresh mapping. NULL without memory. */
mbl_yaml_node_t *mbl_yaml_map(int line);
/* The child of a mapping called `key` (the first of that name), or NULL; the i-th child, or NULL. */
mbl_yaml_node_t *mbl_yaml_find(const mbl_yaml_node_t *map, const char *key);
mbl_yaml_node_t *mbl_yaml_at(const mbl_yaml_node_t *node, size_t i);
/* Appends a child (owned from here on). */
void mbl_yaml_append(mbl_yaml_node_t *parent, mbl_yaml_node_t *child);
/* Puts `next`, which is owned from here on, in the place of the child `old`, which is freed; the key stays.
 */
void mbl_yaml_replace(mbl_yaml_node_t *parent, mbl_yaml_node_t *old, mbl_yaml_node_t *next);

/* A text as a double-quoted scalar that any YAML reader takes for that text (UTF-8; control characters
 * escaped); the second into a fresh string, for --set: NULL without memory, free with mbl_free. */
void mbl_yaml_write_quoted(FILE *out, const char *text);
char *mbl_yaml_quoted(const char *text);
/* A number that readers of YAML 1.1 take for one too (a point and a signed exponent, 1.0e-08): the shortest
 * decimal that is the same double. */
void mbl_yaml_write_number(FILE *out, double value);
/* Whether readers of YAML 1.1 take the plain word for true (1) or false (0), such as on and No; -1: neither.
 */
int mbl_yaml_boolean(const char *word);

#endif
