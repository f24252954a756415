/* From a Gram matrix to the direction of the step: which weight every gradient gets. Pure numbers; rank 0
 * solves, all ranks get the result. */
#ifndef MBL_RL_BALANCE_H
#define MBL_RL_BALANCE_H

#include "rl/method_list.h"
#include "rl/sets.h"

/* What is balanced where objectives share a common part. */
typedef enum {
    MBL_COMMON_TOGETHER, /* the rewards' gradients g_k = a_k + c_of[k] */
    MBL_COMMON_APART, /* the reward parts a_k; the mean c of their c_of[k] is added to the direction once */
    MBL_COMMON_OFFSET /* the same, for the shortest direction with c in it (marble only) */
} mbl_common_t;

typedef struct {
    mbl_method_t method;
    mbl_common_t common;
    const mbl_sets_t *sets; /* NULL: all rewards apply to all samples, and no set is the KL term */
    bool guard;   /* the direction is moved by the least that makes it work against no own part (guard.h) */
    double floor; /* least alpha of a reward that takes part */
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
    /* alphabar: rho alphabar + (1 - rho) alpha (a shrunk one) of the rewards that took part, started from the
     * first alpha; a reward left out keeps its own: the sum need not be 1 (marble_reference: reference.h) */
    double alpha_mean[MBL_MAX_REWARDS];
    bool seen[MBL_MAX_REWARDS]; /* that reward has entered the average */
} mbl_balance_state_t;

typedef struct {
    double alpha[MBL_MAX_REWARDS];      /* used this step */
    double alpha_mean[MBL_MAX_REWARDS]; /* alphabar after this step, scaled to sum 1 over the used rewards */
    double norm[MBL_MAX_REWARDS];       /* |g_k| */
    double length[MBL_MAX_REWARDS];     /* of the gradient that reward k was balanced by; 0 where unused */
    double cos[MBL_MAX_REWARDS];        /* cos(D, g_k); 0 where not measured */
    double cos_part[MBL_MAX_REWARDS];   /* cos(D, a_k), of the reward's own part; 0 where not measured */
    bool measured[MBL_MAX_REWARDS];     /* g_k is finite, of norm > 1e-12 and with a reward part of its own */
    bool used[MBL_MAX_REWARDS];         /* ... and takes part in the balance */
    size_t n_used;
    double coefficient[MBL_SETS_MAX];                /* D = sum_j coefficient_j set_j */
    double direction_norm;                           /* |D|; 0 where D cancels out to rounding */
    double cos_min, cos_mean, cos_var, cos_part_min; /* over the measured active rewards; 0 without any */
    double moved;                                    /* by the guard: |D - D before it| over |D before it| */
    double kkt_residual;
    double seconds; /* of the solve, on rank 0 */
} mbl_balance_step_t;

/* gram [S * S] over the sets; R = k, or k + 1 when the method has an objective of its own: part k + 1. A step
 * on which no reward is usable gets zero coefficients. Collective (one broadcast of the result). */
mbl_status_t mbl_balance(mbl_comm_t *comm, const mbl_balance_options_t *options, const double *gram, size_t k,
                         mbl_balance_state_t *state, mbl_balance_step_t *out);
/* The same without communication. */
mbl_status_t mbl_balance_local(const mbl_balance_options_t *options, const double *gram, size_t k,
                               mbl_balance_state_t *state, mbl_balance_step_t *out);
/* step's alpha into the average of the rewards it used, started from a reward's first; the others keep
 * theirs. mbl_balance has done so with its own solution. Local. */
void mbl_balance_average(double rho, size_t k, mbl_balance_step_t *step, mbl_balance_state_t *state);
/* What a direction whose coefficients are given means for every reward: norm, cosines and direction_norm of
 * *step from gram [S * S]; active [K] as in the options. */
void mbl_balance_measure(const double *gram, const mbl_sets_t *sets, const bool *active, size_t k,
                         mbl_balance_step_t *step);
/* The same for a D that is no combination of sets: gram [(S+1)^2] over the sets and D. */
void mbl_balance_measure_row(const double *gram, const mbl_sets_t *sets, const bool *active, size_t k,
                             mbl_balance_step_t *step);

#endif
