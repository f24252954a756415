/* From a Gram matrix to the direction of the step: which weight every gradient gets. Pure numbers; rank 0
 * solves, all ranks get the result. */
#ifndef MBL_RL_BALANCE_H
#define MBL_RL_BALANCE_H

#include "rl/types.h"

/* What they do: methods.h. */
typedef enum {
    MBL_METHOD_MARBLE,
    MBL_METHOD_EQUAL,
    MBL_METHOD_WEIGHTED_SUM,
    MBL_METHOD_FIXED,
    MBL_METHOD_PCGRAD,
    MBL_METHOD_UPGRAD,
    MBL_METHOD_CAGRAD,
    MBL_METHOD_NASH,
    MBL_METHOD_GDPO,
    MBL_METHOD_REFERENCE
} mbl_method_t;
/* By its name in run.yaml; false when there is none. */
bool mbl_method_find(const char *name, mbl_method_t *out);
/* Whether it follows one objective of its own (reward part K + 1), with the rewards' gradients for comparison
 * only: weighted_sum, gdpo. */
bool mbl_method_has_objective(mbl_method_t method);

/* Whether its shares are solved for at a step: not those of equal and fixed, and none of an objective. */
bool mbl_method_solves(mbl_method_t method);

/* What is balanced where the objectives share the part c. */
typedef enum {
    MBL_COMMON_TOGETHER, /* the rewards' gradients a_k + c */
    MBL_COMMON_APART,    /* the reward parts a_k; c is added to the direction once */
    MBL_COMMON_OFFSET    /* the same, for the shortest direction with c in it (marble only) */
} mbl_common_t;

typedef struct {
    mbl_method_t method;
    mbl_common_t common;
    double floor;          /* least alpha of a reward that takes part */
    double cagrad_c;       /* radius around the mean gradient, of its length (cagrad) */
    double rho;            /* smoothing of alpha over steps */
    const double *weights; /* [K] of the rewards, positive, of any sum; NULL: all alike */
    /* [K] rewards with equal numbers share one objective, the mean of their gradients; NULL: none do. Not for
     * methods with an objective of their own */
    const size_t *group;
    const bool *active; /* [K] rewards that may take part; NULL: all */
    /* [K] of constrained rewards (constraint.h), which share no objective; NAN for free ones. NULL: all free
     */
    const double *pressure;
} mbl_balance_options_t;

/* Kept over steps and in checkpoints. */
typedef struct {
    /* alphabar: rho alphabar + (1 - rho) alpha of the rewards that took part, started from the first alpha;
     * a reward left out keeps its own, so the sum need not be 1 (marble_reference: reference.h) */
    double alpha_mean[MBL_MAX_REWARDS];
    bool seen[MBL_MAX_REWARDS]; /* that reward has entered the average */
} mbl_balance_state_t;

typedef struct {
    double alpha[MBL_MAX_REWARDS];      /* used this step */
    double alpha_mean[MBL_MAX_REWARDS]; /* alphabar after this step, scaled to sum 1 over the used rewards */
    double norm[MBL_MAX_REWARDS];       /* |g_k|, g_k = a_k + c */
    double length[MBL_MAX_REWARDS];     /* of the gradient that reward k was balanced by; 0 where unused */
    double cos[MBL_MAX_REWARDS];        /* cos(D, g_k); 0 where not measured */
    double cos_part[MBL_MAX_REWARDS];   /* cos(D, a_k), of the reward's own part; 0 where not measured */
    bool measured[MBL_MAX_REWARDS];     /* g_k is finite, of norm > 1e-12 and with a reward part of its own */
    bool used[MBL_MAX_REWARDS];         /* ... and takes part in the balance */
    size_t n_used;
    double coefficient[MBL_MAX_REWARDS +
                       2]; /* D = sum_j coefficient_j sets_j over the R reward parts, then the common part */
    double direction_norm; /* |D|; 0 where D cancels out to rounding */
    double cos_min, cos_mean, cos_var; /* over the measured rewards; 0 without any */
    double kkt_residual;
    double seconds; /* of the solve, on rank 0 */
} mbl_balance_step_t;

/* gram [(R+1)^2] over the reward parts a_1..a_R and c, R = k, or k + 1 when the method has an objective of
 * its own: part k + 1. A step on which no reward is usable gets zero coefficients. Collective (one
 * broadcast of the result). */
mbl_status_t mbl_balance(mbl_comm_t *comm, const mbl_balance_options_t *options, const double *gram, size_t k,
                         mbl_balance_state_t *state, mbl_balance_step_t *out);
/* The same without communication. */
mbl_status_t mbl_balance_local(const mbl_balance_options_t *options, const double *gram, size_t k,
                               mbl_balance_state_t *state, mbl_balance_step_t *out);
/* What D = sum_j coefficient_j sets_j of a step whose weights are given means for every reward: norm, cosines
 * and direction_norm of *step from gram [(K+1)^2]. */
void mbl_balance_measure(const double *gram, size_t k, mbl_balance_step_t *step);
/* The same for a D that is no combination of sets: gram [(R+2)^2] over the R + 1 sets and D. */
void mbl_balance_measure_row(const double *gram, size_t r, size_t k, mbl_balance_step_t *step);

#endif
