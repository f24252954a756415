/* Whole optimizer steps of the bench fixture, by the code that trains (rl/update.h). */
#ifndef MBL_CLI_BENCH_UPDATE_H
#define MBL_CLI_BENCH_UPDATE_H

#include "cli/bench/fixture.h"

typedef struct {
    const char *name;
    mbl_method_t method;
    bool cached;          /* with the weights of a solve before */
    bool diagnose;        /* all gradients, though the method does not need them */
    double gram_fraction; /* of the rows that the solve sees */
    double kl_fraction; /* of the rows that the KL term, apart, is taken of; 0: it rides with the rewards' */
    bool together; /* the common part in every gradient, instead of once where the method can allow for it */
} mbl_bench_method_t;
#define MBL_BENCH_METHODS                                                                                    \
    {                                                                                                        \
        {"marble", MBL_METHOD_MARBLE, false, false, 1, 1, false},                                            \
            {"equal", MBL_METHOD_EQUAL, false, false, 1, 1, false},                                          \
            {"weighted_sum", MBL_METHOD_WEIGHTED_SUM, false, false, 1, 1, false},                            \
            {"weighted_sum diagnostics", MBL_METHOD_WEIGHTED_SUM, false, true, 1, 1, false},                 \
            {"marble cached", MBL_METHOD_MARBLE, true, false, 1, 1, false},                                  \
            {"marble gram_fraction=0.1", MBL_METHOD_MARBLE, false, false, 0.1, 1, false},                    \
            {"marble kl_fraction=0.25", MBL_METHOD_MARBLE, false, false, 1, 0.25, false},                    \
            {"marble kl=common", MBL_METHOD_MARBLE, false, false, 1, 0, false}, {                            \
            "marble common=together", MBL_METHOD_MARBLE, false, false, 1, 1, true                            \
        }                                                                                                    \
    }
enum { MBL_BENCH_N_METHODS = 9 };

/* What balancing adds once the first k rewards' sets are formed: their sums over ranks, Gram matrix, weights
 * and their broadcast. */
mbl_status_t mbl_bench_weigh(mbl_bench_fixture_t *fixture, const mbl_bench_method_t *method, size_t k);
/* A step, then the rollout policy follows. */
mbl_status_t mbl_bench_update(mbl_bench_fixture_t *fixture, const mbl_bench_method_t *method, size_t k,
                              size_t timesteps);

#endif
