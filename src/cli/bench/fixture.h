/* What the benchmarks of a training step work on: a random model of the signs shape (width 128, 4 heads, 6
 * layers of which 2 dual, 64 image and 24 text tokens) with adapters of rank 16 on all joint projections, a
 * batch of random images and K synthetic rewards. */
#ifndef MBL_CLI_BENCH_FIXTURE_H
#define MBL_CLI_BENCH_FIXTURE_H

#include "cli/bench/bench.h"
#include "rl/update.h"

enum { MBL_BENCH_STEPS = 8 }; /* solver steps of a rollout */

typedef struct {
    mbl_ops_t *ops;
    mbl_comm_t *comm; /* self */
    mbl_pipeline_t *pipeline;
    mbl_lora_t *lora;
    mbl_update_t
        update; /* adapters: current, old and EMA differ, no B is zero; the batch is one micro-batch */
    mbl_conditions_t conditions;
    mbl_batch_t batch;
    mbl_sampler_plan_t plan; /* of the training timesteps and of a rollout */
    float *a;                /* [K + 1, n]: the rewards' factors, then those of their sum */
    uint32_t *prompt;
    int64_t *sample;
} mbl_bench_fixture_t;

/* The shape of that model, in the words of config.json; NULL without memory. */
json_t *mbl_bench_signs_shape(void);

/* n samples in groups of 8 or fewer, k rewards. Free with mbl_bench_fixture_close, also after a failure. */
mbl_status_t mbl_bench_fixture_open(const mbl_bench_t *bench, mbl_dtype_t dtype, size_t n, size_t k,
                                    mbl_bench_fixture_t *out);
void mbl_bench_fixture_close(mbl_bench_fixture_t *fixture);

/* The arguments of mbl_gradient_run over this batch, with the first k rewards from now on. */
mbl_gradient_args_t mbl_bench_fixture_args(mbl_bench_fixture_t *fixture, size_t k, size_t timesteps,
                                           double kl);

#endif
