/* Forward and backward passes of the bench fixture's model outside mbl_gradient: what a framework does that
 * forms every reward's gradient by a backward pass of its own. */
#ifndef MBL_CLI_BENCH_PASS_H
#define MBL_CLI_BENCH_PASS_H

#include "cli/bench/fixture.h"

typedef struct {
    mbl_bench_fixture_t *fixture;
    mbl_tape_t *keep, *none;
    mbl_tensor_t xt, v, v_old, u, h, seed; /* [N,C,H,W] */
    mbl_tensor_t t, loss_plus, loss_minus; /* [N] */
    mbl_tensor_t mix;                      /* [2,N]: reward's factors, ones */
    mbl_tensor_t coefficient;              /* [1,N] f32 */
    mbl_conditions_t conditions;
} mbl_bench_pass_t;

/* Noisy images at random times. `keep_too`: with what backward passes need. Free with mbl_bench_pass_close,
 * also after a failure. */
mbl_status_t mbl_bench_pass_open(mbl_bench_fixture_t *fixture, bool keep_too, mbl_bench_pass_t *out);
void mbl_bench_pass_close(mbl_bench_pass_t *pass);

/* v_old: the rollout policy's velocity. */
mbl_status_t mbl_bench_pass_forward(mbl_bench_pass_t *pass);
/* The forward passes of old and current, and the seeds. */
mbl_status_t mbl_bench_pass_forward_both(mbl_bench_pass_t *pass);
/* The same, then k backward passes, one for each reward, into sets [k + 2, padded] of
 * the fixture. */
mbl_status_t mbl_bench_pass_separate(mbl_bench_pass_t *pass, size_t k);

#endif
