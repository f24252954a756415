/* Rewards that apply to some samples only, on the batch of gradient_case.h, and their gradients the long way:
 * one pass for each over a batch of its own samples alone. */
#ifndef MBL_TESTS_MASKS_CASE_H
#define MBL_TESTS_MASKS_CASE_H

#include "gradient_case.h"

#include "base/share.h"
#include "comm/comm.h"

enum { PARTS = 5, MASK_CASES = 3 };

/* As parts of all samples these are powers of two, so coefficients are exact in f32. */
static inline bool mask_has(size_t mask, size_t i) {
    return mask == 0 || (mask == 1 && i < N / 2) || (mask == 2 && i % 2) || (mask == 3 && i % 4 == 0) ||
           (mask == 4 && i >= N / 2);
}
/* The mask of every reward: 1, 2 and 5 distinct ones. */
static const uint8_t mask_cases[MASK_CASES][PARTS] = {{0}, {0, 1, 0, 1, 0}, {0, 1, 2, 3, 4}};
static const size_t mask_counts[MASK_CASES] = {1, 2, 5};

typedef struct {
    case_t c;
    float a[PARTS * N];
    uint8_t valid[PARTS * N]; /* of this rank's samples */
    mbl_masks_t masks;
    mbl_batch_t own; /* this rank's part of the batch, */
    float own_a[PARTS * N];
    mbl_gradient_args_t args; /* and the arguments of its run */
    mbl_gradient_t *gradient;
    double *sum; /* [MBL_SETS_MAX * size] */
} masked_t;

/* This rank's share, which may begin and end inside a group. */
static inline void cut_batch(masked_t *m, mbl_comm_t *comm, size_t which) {
    const mbl_share_t share = mbl_share(N, (size_t)comm->size, (size_t)comm->rank);
    const size_t first = share.first;
    m->own = m->c.batch;
    m->own.n = share.n;
    m->own.k = PARTS;
    m->own.prompt += first;
    m->own.sample += first;
    m->own.x0 = mbl_tensor_rows(&m->c.batch.x0, first, m->own.n);
    for (size_t r = 0; r < PARTS; r++)
        for (size_t i = 0; i < m->own.n; i++) {
            m->own_a[r * m->own.n + i] = m->a[r * N + first + i];
            m->valid[r * m->own.n + i] = mask_has(mask_cases[which][r], first + i);
        }
    assert_ok(mbl_masks(comm, m->valid, PARTS, m->own.n, N, &m->masks));
    assert_int_equal(m->masks.count, mask_counts[which]);
    m->args = m->c.args;
    m->args.batch = &m->own;
    m->args.a = m->own_a;
    m->args.parts = PARTS;
    m->args.masks = &m->masks;
    m->args.kl = 0.75; /* kl beta / clip = 1/16 */
}

static inline void open_masked(masked_t *m, mbl_comm_t *comm, mbl_dtype_t dtype, size_t which) {
    open_case(&m->c, dtype);
    assert_ok(mbl_gradient_new(m->c.tiny.pipeline, m->c.tiny.lora, 5, PARTS, 0, &m->gradient));
    for (size_t r = 0; r < PARTS; r++)
        for (size_t i = 0; i < N; i++) {
            double a = round(24 * tiny_normal((uint32_t)(60 + r), i)) / 64;
            bool in = mask_has(mask_cases[which][r], i);
            m->a[r * N + i] = (float)(in ? fmax(-0.5, fmin(0.5, a)) : 0);
        }
    m->sum = new_rows(&m->c, MBL_SETS_MAX);
    cut_batch(m, comm, which);
}

static inline void close_masked(masked_t *m) {
    mbl_gradient_free(m->gradient);
    mbl_free(m->sum);
    close_case(&m->c);
}

/* Runs on this rank's samples and adds up what all ranks have into m->sum; the stats too. */
static inline mbl_gradient_stats_t run_masked(masked_t *m, mbl_comm_t *comm) {
    mbl_gradient_stats_t stats = run_with(&m->c, m->gradient, &m->args, m->sum);
    double numbers[2] = {stats.loss, stats.kl};
    size_t n = mbl_gradient_sets(&m->args) * m->c.tiny.size;
    assert_ok(mbl_comm_allreduce(comm, m->sum, n, MBL_COMM_F64, MBL_COMM_SUM));
    assert_ok(mbl_comm_allreduce(comm, numbers, 2, MBL_COMM_F64, MBL_COMM_SUM));
    stats.loss = numbers[0];
    stats.kl = numbers[1];
    return stats;
}

/* The gradient of reward r, KL term included where kl > 0, by a pass over a batch of the samples of its mask;
 * r = PARTS: of the KL term alone, over all samples. */
static inline mbl_gradient_stats_t run_alone(masked_t *m, size_t which, size_t r, double kl, double *out) {
    static const double one = 1, none = 0;
    mbl_batch_t batch = m->c.batch;
    mbl_gradient_args_t args = m->c.args;
    uint32_t prompt[N];
    int64_t sample[N];
    float a[N];
    size_t n = 0;
    assert_ok(mbl_tensor_new(m->c.tiny.ops, m->c.tiny.stat, &batch.x0, 4, (size_t)N, batch.x0.dim[1],
                             batch.x0.dim[2], batch.x0.dim[3]));
    for (size_t i = 0; i < N; i++) {
        if (r < PARTS && !mask_has(mask_cases[which][r], i))
            continue;
        mbl_tensor_t from = mbl_tensor_rows(&m->c.batch.x0, i, 1), to = mbl_tensor_rows(&batch.x0, n, 1);
        assert_ok(mbl_tensor_copy(m->c.tiny.ops, &to, &from));
        prompt[n] = m->c.prompt[i];
        sample[n] = m->c.sample[i];
        a[n++] = r < PARTS ? m->a[r * N + i] : 0;
    }
    batch.n = batch.n_global = n;
    batch.group_size = 1;
    batch.k = 1;
    batch.prompt = prompt;
    batch.sample = sample;
    mbl_tensor_t all = batch.x0;
    batch.x0 = mbl_tensor_rows(&all, 0, n);
    args.batch = &batch;
    args.a = a;
    args.parts = 1;
    args.kl = kl;
    args.kl_apart = true; /* once, and with no reward too */
    args.c = r < PARTS ? &one : &none;
    mbl_gradient_stats_t stats = run_with(&m->c, m->gradient, &args, out);
    mbl_tensor_free(m->c.tiny.ops, &all);
    return stats;
}

/* All gradients g_k from the sets of one run equal those of separate passes; with `apart` the KL term is a
 * set of its own, without it is in every gradient. kl 0: no KL term. */
static inline void check_masked(masked_t *m, mbl_comm_t *comm, size_t which, double kl, bool apart,
                                double tolerance) {
    size_t size = m->c.tiny.size;
    double *alone = new_rows(&m->c, 1), *g = new_rows(&m->c, 1), loss = 0;
    m->args.kl = kl;
    m->args.kl_apart = apart;
    mbl_gradient_stats_t stats = run_masked(m, comm), one;
    mbl_sets_t sets = mbl_sets(PARTS, &m->masks, apart && kl > 0);
    assert_int_equal(mbl_gradient_sets(&m->args), mbl_sets_count(&sets));
    for (size_t r = 0; r < PARTS; r++) {
        const double *a = m->sum + r * size, *common = m->sum + (PARTS + sets.of[r]) * size;
        one = run_alone(m, which, r, apart ? 0 : kl, alone);
        loss += one.loss / PARTS;
        for (size_t i = 0; i < size; i++)
            g[i] = a[i] + common[i];
        check_close(g, alone, size, tolerance, "masked gradient", r);
        assert_true(norm_of(a, size) > 1e-3 * norm_of(alone, size));
        assert_true(norm_of(common, size) > 1e-3 * norm_of(alone, size));
    }
    assert_near(stats.loss, loss, tolerance * fabs(loss));
    if (kl > 0) {
        one = run_alone(m, which, PARTS, kl, alone);
        assert_near(stats.kl, one.kl, tolerance * one.kl);
        assert_true(one.kl > 0);
        if (apart)
            check_close(m->sum + (mbl_sets_count(&sets) - 1) * size, alone, size, tolerance, "KL term", 0);
    }
    mbl_free(alone);
    mbl_free(g);
}

#endif
