/* The one list of methods. A new one that weighs the rewards' gradients is a file with mbl_method_NAME
 * (methods.h) and a line here; run.yaml's word, its checks and its help, `marble solve --method` and the
 * balance follow from it. */
#ifndef MBL_RL_METHOD_LIST_H
#define MBL_RL_METHOD_LIST_H

#include <stdbool.h>

/* What a method does and takes. */
enum {
    MBL_METHOD_SOLVES = 1, /* its shares follow from the Gram matrix of a step, else they are known before */
    MBL_METHOD_OBJECTIVE = 2,   /* one objective of its own, reward part K + 1; the rewards' own gradients are
                                   compared with it only */
    MBL_METHOD_ADVANTAGES = 4,  /* ... made of the rewards' advantages instead of their scores */
    MBL_METHOD_WEIGHTS = 8,     /* its shares are the rewards' weights */
    MBL_METHOD_FLOOR = 16,      /* takes a least alpha */
    MBL_METHOD_PRIORITIES = 32, /* weights enter its QP as 1 / w; the other methods put them into alpha */
    MBL_METHOD_OFFSET = 64,     /* can allow for a common part that is added once */
    MBL_METHOD_MICRO_BATCHES = 128 /* solves on single micro-batches, trains the rest with the average of
                                      alpha, and weighs as its source does (reference.h) */
};

/* X for methods that weigh gradients, Y for those that follow an objective of their own:
 * (NAME, word, flags, help). */
#define MBL_METHOD_LIST(X, Y)                                                                                \
    X(MARBLE, marble, MBL_METHOD_SOLVES | MBL_METHOD_FLOOR | MBL_METHOD_PRIORITIES | MBL_METHOD_OFFSET,      \
      "the shortest convex combination of unit gradients, level in all it weighs (arXiv 2605.06507)")        \
    X(EQUAL, equal, 0, "all shares alike, weights or not")                                                   \
    Y(WEIGHTED_SUM, weighted_sum, MBL_METHOD_OBJECTIVE,                                                      \
      "one advantage, from the weighted sum of the scores (arXiv 2509.16117)")                               \
    X(FIXED, fixed, MBL_METHOD_WEIGHTS, "shares are the rewards' weights")                                   \
    X(PCGRAD, pcgrad, MBL_METHOD_SOLVES, "conflicts projected away, one after another (arXiv 2001.06782)")   \
    X(UPGRAD, upgrad, MBL_METHOD_SOLVES,                                                                     \
      "mean of the projections onto the cone without conflict (arXiv 2406.16232)")                           \
    X(CAGRAD, cagrad, MBL_METHOD_SOLVES, "largest least progress near the mean gradient (arXiv 2110.14048)") \
    X(NASH, nash, MBL_METHOD_SOLVES, "largest product of progresses (arXiv 2202.01017)")                     \
    Y(GDPO, gdpo, MBL_METHOD_OBJECTIVE | MBL_METHOD_ADVANTAGES,                                              \
      "one advantage, from the weighted sum of the rewards' advantages (arXiv 2601.05242)")                  \
    X(REFERENCE, marble_reference, MBL_METHOD_SOLVES | MBL_METHOD_FLOOR | MBL_METHOD_MICRO_BATCHES,          \
      "what MARBLE's released code does, for comparison (aim-uofa/MARBLE at 1bf9543)")

typedef enum {
#define MBL_METHOD_ENUM(NAME, word, flags, help) MBL_METHOD_##NAME,
    MBL_METHOD_LIST(MBL_METHOD_ENUM, MBL_METHOD_ENUM)
#undef MBL_METHOD_ENUM
        MBL_METHODS
} mbl_method_t;

/* The word of run.yaml, and a line of help. */
const char *mbl_method_name(mbl_method_t method);
const char *mbl_method_help(mbl_method_t method);
/* By its word; false when there is none. */
bool mbl_method_find(const char *name, mbl_method_t *out);
/* Whether it has all of these flags. */
bool mbl_method_is(mbl_method_t method, unsigned flags);

/* The same in words: whether it follows an objective of its own; whether its shares are solved for. */
bool mbl_method_has_objective(mbl_method_t method);
bool mbl_method_solves(mbl_method_t method);

#endif
