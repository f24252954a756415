/* A whole optimizer step of the bench world: gradients, Gram matrix, weights, AdamW, adapters. */
#ifndef MBL_CLI_BENCH_UPDATE_H
#define MBL_CLI_BENCH_UPDATE_H

#include "cli/bench/world.h"

typedef struct {
    const char *name;
    mbl_method_t method;
    bool all; /* form every reward's gradient; else one, of the method's objective or with cached weights */
    double gram_fraction; /* solve on that part of the rows; 0: on all */
} mbl_bench_method_t;
/* The cached weights are those of the marble step before. */
#define MBL_BENCH_METHODS                                                                                    \
    {                                                                                                        \
        {"marble", MBL_METHOD_MARBLE, true, 0}, {"equal", MBL_METHOD_EQUAL, true, 0},                        \
            {"weighted_sum", MBL_METHOD_WEIGHTED_SUM, false, 0},                                             \
            {"weighted_sum diagnostics", MBL_METHOD_WEIGHTED_SUM, true, 0},                                  \
            {"marble cached", MBL_METHOD_MARBLE, false, 0}, {                                                \
            "marble gram_fraction=0.1", MBL_METHOD_MARBLE, true, 0.1                                         \
        }                                                                                                    \
    }
enum { MBL_BENCH_N_METHODS = 6 };

/* Gram matrix of the first k rewards' sets, weights, broadcast. Coefficients [k + 2] of the sets out. */
mbl_status_t mbl_bench_weigh(mbl_bench_world_t *world, const mbl_bench_method_t *method, size_t k,
                             double *coefficient, double *norm);
mbl_status_t mbl_bench_update(mbl_bench_world_t *world, const mbl_bench_method_t *method, size_t k,
                              size_t timesteps);

#endif
