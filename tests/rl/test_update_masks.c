/* Whole optimizer steps on rewards that apply to some of the samples: what moves the weights is sum_k c_k g_k
 * over each reward's own samples, plus the KL term, however the step came by it, on any number of ranks.
 * ctest-ranks: 2 3 4 */
#include "masks_case.h"
#include "ranks.h"

#include "rl/gram_part.h"
#include "rl/update.h"

typedef struct {
    masked_t m;       /* its adapters are laid out without holes */
    mbl_lora_t *lora; /* laid out for the ranks */
    mbl_update_t update;
    mbl_update_options_t options;
    mbl_update_result_t result;
    mbl_reward_stats_t stats[PARTS];
    mbl_sets_t sets;
    float *moment; /* [count] the first one before the step */
    double *want;  /* [size] */
} step_t;

static void shake(step_t *s, mbl_tensor_t *values, uint32_t stream) {
    float *host = mbl_calloc(s->update.padded, sizeof *host);
    for (size_t i = 0; i < s->m.c.tiny.size; i++)
        host[i] = (float)(0.2 * tiny_normal(stream, i));
    mbl_lora_spread(s->lora, host);
    assert_ok(mbl_tensor_upload(s->m.c.tiny.ops, values, host));
    mbl_free(host);
}

/* The policy's adapters as they are, for the gradients that the update's are held against. */
static void copy_policy(step_t *s) {
    tiny_t *tiny = &s->m.c.tiny;
    const mbl_tensor_t *from[2] = {&s->update.policy.current, &s->update.policy.old};
    mbl_adapter_t *to[2] = {&tiny->current, &tiny->old};
    float *host = mbl_calloc(s->update.padded, sizeof *host);
    for (int i = 0; i < 2; i++) {
        mbl_tensor_t values;
        assert_ok(mbl_tensor_new(tiny->ops, MBL_F32, &values, 1, tiny->size));
        assert_ok(mbl_tensor_download(tiny->ops, from[i], host));
        mbl_lora_pack(s->lora, host);
        assert_ok(mbl_tensor_upload(tiny->ops, &values, host));
        assert_ok(mbl_adapter_set(tiny->model, to[i], &values));
        mbl_tensor_free(tiny->ops, &values);
    }
    mbl_free(host);
}

static void open_step(step_t *s, mbl_comm_t *comm, size_t which) {
    memset(s, 0, sizeof *s);
    open_masked(&s->m, comm, MBL_F32, which);
    tiny_t *tiny = &s->m.c.tiny;
    for (size_t i = 0; i < N; i++) /* parts of a step go by these */
        s->m.c.sample[i] = (int64_t)i;
    assert_ok(mbl_comm_attach(comm, tiny->ops));
    assert_ok(mbl_lora_new_sharded(tiny->model, mbl_lora_config(tiny->lora), (size_t)comm->size, &s->lora));
    assert_ok(mbl_update_new(comm, tiny->ops, tiny->model, s->lora, 1, &s->update));
    shake(s, &s->update.policy.current, 1);
    shake(s, &s->update.policy.old, 2);
    assert_ok(mbl_policy_loaded(&s->update.policy, false));
    mbl_update_room_t room = {.parts = PARTS,
                              .masks = PARTS,
                              .kl_apart = true,
                              .micro_batch = 5,
                              .rows = 4 * s->m.own.n,
                              .kl_rows = 4 * s->m.own.n,
                              .halves = true};
    assert_ok(mbl_update_prepare(&s->update, tiny->pipeline, &room));
    s->m.args.kl_apart = true;
    s->m.args.current = &tiny->current;
    s->m.args.old = &tiny->old;
    copy_policy(s);
    for (size_t k = 0; k < PARTS; k++)
        s->stats[k] = (mbl_reward_stats_t){.valid = 1, .advantage_std = 1};
    s->options = (mbl_update_options_t){.gradient = s->m.args,
                                        .balance = {.method = MBL_METHOD_MARBLE, .rho = 0.7},
                                        .stats = s->stats,
                                        .step = 1,
                                        .refresh_every = 1,
                                        .gram_fraction = 1,
                                        .optimizer = {1e-6, 0.9, 0.999, 1e-8, 0, 0},
                                        .ema = 0.9};
    s->want = new_rows(&s->m.c, 1);
    s->moment = mbl_calloc(s->update.optimizer.count, sizeof *s->moment);
}

static void close_step(step_t *s) {
    mbl_free(s->want);
    mbl_free(s->moment);
    mbl_update_free(&s->update);
    mbl_lora_free(s->lora);
    close_masked(&s->m);
}

/* The gradients of the coming step over all rows: in m.sum. */
static void form(step_t *s, mbl_comm_t *comm) {
    s->m.args.kl_apart = s->options.gradient.kl_apart;
    copy_policy(s);
    run_masked(&s->m, comm);
    s->sets = mbl_sets(PARTS, &s->m.masks, s->m.args.kl_apart);
}

static void take_step(step_t *s) {
    assert_ok(mbl_tensor_download(s->m.c.tiny.ops, &s->update.optimizer.state[0], s->moment));
    assert_ok(mbl_update_step(&s->update, &s->options, &s->result));
    assert_true(s->result.norm > 0);
    s->options.step++;
}

/* What was applied, which AdamW's first moment took a tenth of, is the direction of these coefficients of the
 * rewards, with the common part in each or added once. */
static void check_direction(step_t *s, mbl_comm_t *comm, const char *what) {
    size_t size = s->m.c.tiny.size, count = s->update.optimizer.count, first, last;
    double coefficient[MBL_SETS_MAX], square = 0;
    memcpy(coefficient, s->result.balance.coefficient, PARTS * sizeof *coefficient);
    mbl_sets_spread(&s->sets,
                    s->options.balance.common == MBL_COMMON_TOGETHER ? NULL : s->result.balance.used,
                    coefficient);
    memset(s->want, 0, size * sizeof *s->want);
    for (size_t j = 0; j < mbl_sets_count(&s->sets); j++)
        for (size_t i = 0; i < size; i++)
            s->want[i] += coefficient[j] * s->m.sum[j * size + i];
    float *now = mbl_calloc(count, sizeof *now);
    double *got = mbl_calloc(count, sizeof *got);
    assert_ok(mbl_tensor_download(s->m.c.tiny.ops, &s->update.optimizer.state[0], now));
    for (size_t i = 0; i < count; i++)
        got[i] = ((double)now[i] - 0.9 * (double)s->moment[i]) / 0.1;
    mbl_lora_range(s->lora, (size_t)comm->rank, &first, &last);
    const size_t n = last - first;
    for (size_t i = 0; i < size; i++)
        square += s->want[i] * s->want[i];
    assert_near(s->result.norm, sqrt(square), 1e-5 * sqrt(square));
    if (n > 0)
        check_close(got, s->want + first, n, 1e-4, what, 0);
    mbl_free(now);
    mbl_free(got);
}

/* The gradients of every reward, from the sets. */
static double inner(const step_t *s, const double *d, size_t k) {
    size_t size = s->m.c.tiny.size;
    double sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += d[i] * (s->m.sum[k * size + i] + s->m.sum[(PARTS + s->sets.of[k]) * size + i]);
    return sum;
}

static void a_solve_on_all_rows(void **state) {
    mbl_comm_t *comm = *state;
    for (size_t which = 0; which < MASK_CASES; which++)
        for (int apart = 0; apart < 2; apart++) {
            step_t s;
            open_step(&s, comm, which);
            s.options.gradient.kl_apart = apart;
            form(&s, comm);
            take_step(&s);
            check_direction(&s, comm, "direction");
            size_t size = s.m.c.tiny.size;
            for (size_t k = 0; k < PARTS; k++) {
                double own = sqrt(inner(&s, s.m.sum + k * size, k) +
                                  inner(&s, s.m.sum + (PARTS + s.sets.of[k]) * size, k));
                double cosine = inner(&s, s.want, k) / own / s.result.norm;
                assert_near(s.result.balance.norm[k], own, 1e-5 * own);
                assert_near(s.result.balance.cos[k], cosine, 1e-5);
                if (!apart) /* the guarantee: with the KL term in every gradient, to rounding */
                    assert_true(cosine > 0);
            }
            close_step(&s);
        }
}

/* A solve on half of the rows: lengths are those of the means over the chosen rows of every mask, and the
 * weights hold for all rows. */
static void a_solve_on_half_the_rows(void **state) {
    mbl_comm_t *comm = *state;
    step_t s;
    open_step(&s, comm, 2);
    uint8_t part_of[4 * N];
    size_t size = s.m.c.tiny.size, n = s.m.own.n;
    mbl_gram_part_t part = {.fraction = 0.5,
                            .micro_batch = 5,
                            .timesteps = 4,
                            .slices = 1,
                            .seed = s.m.args.seed,
                            .step = s.m.args.step};
    assert_true(mbl_gram_part(&part, &s.m.own, part_of) < 1);
    s.sets = mbl_sets(PARTS, &s.m.masks, true);
    s.m.args.part_of = part_of;
    s.m.args.part = MBL_PART_GRAM;
    run_masked(&s.m, comm);
    double length[PARTS];
    for (size_t k = 0; k < PARTS; k++) {
        double counts[2] = {0};
        for (size_t i = 0; i < 4 * n; i++) {
            bool in = s.m.valid[k * n + i % n];
            counts[0] += in && part_of[i] == MBL_PART_GRAM;
            counts[1] += in;
        }
        assert_ok(mbl_comm_allreduce(comm, counts, 2, MBL_COMM_F64, MBL_COMM_SUM));
        assert_true(counts[0] > 0);
        length[k] =
            sqrt(inner(&s, s.m.sum + k * size, k) + inner(&s, s.m.sum + (PARTS + s.sets.of[k]) * size, k)) *
            counts[1] / counts[0];
    }
    s.m.args.part_of = NULL;
    form(&s, comm);
    s.options.gram_fraction = 0.5;
    take_step(&s);
    assert_true(s.result.gram_share < 1);
    for (size_t k = 0; k < PARTS; k++)
        assert_near(s.result.balance.norm[k], length[k], 1e-4 * length[k]);
    check_direction(&s, comm, "direction of half");
    close_step(&s);
}

/* A step with cached weights: one pass, the KL term once. */
static void a_cached_step(void **state) {
    mbl_comm_t *comm = *state;
    for (int apart = 0; apart < 2; apart++) {
        step_t s;
        open_step(&s, comm, 1);
        s.options.gradient.kl_apart = apart;
        s.options.refresh_every = 2;
        take_step(&s);
        assert_true(s.result.refreshed);
        form(&s, comm);
        take_step(&s);
        assert_true(!s.result.refreshed && !s.result.cosines);
        check_direction(&s, comm, "cached direction");
        close_step(&s);
    }
}

/* Where the common part is added once, it is so however a step comes by its weights, and they are those of
 * the own parts. */
static void the_common_part_once(void **state) {
    enum { ALL, HALF, CACHED, SMOOTH, SHRUNK, WARMUP, WAYS };
    static const char *const names[WAYS] = {"all", "half", "cached", "smooth", "shrunk", "warmup"};
    mbl_comm_t *comm = *state;
    for (int way = 0; way < WAYS; way++) {
        step_t s;
        open_step(&s, comm, 2);
        s.options.gradient.kl_apart = way % 2; /* else it is in the common part */
        s.options.balance.common = MBL_COMMON_OFFSET;
        s.options.gram_fraction = way == HALF ? 0.5 : 1;
        s.options.refresh_every = way == CACHED ? 2 : 1;
        s.options.smooth = way == SMOOTH;
        s.options.halves = way == SHRUNK;
        s.options.shrink = way == SHRUNK ? MBL_SHRINK_EQUAL : MBL_SHRINK_OFF;
        s.options.warmup = way == WARMUP;
        if (way == CACHED || way == SMOOTH)
            take_step(&s);
        form(&s, comm);
        take_step(&s);
        assert_int_equal(s.result.refreshed, way != CACHED);
        check_direction(&s, comm, names[way]);
        size_t size = s.m.c.tiny.size;
        for (size_t k = 0; k < PARTS && way == WARMUP; k++) { /* equal shares of unit vectors */
            double mean = 0, own = norm_of(s.m.sum + k * size, size);
            for (size_t j = 0; j < PARTS; j++)
                mean += norm_of(s.m.sum + j * size, size) / PARTS;
            assert_near(s.result.balance.coefficient[k], mean / own / PARTS, 1e-5 * mean / own);
        }
        close_step(&s);
    }
}

/* Half of the KL term's rows, twice as heavy: the direction differs from the whole one by those terms alone.
 */
static void part_of_the_kl_term(void **state) {
    mbl_comm_t *comm = *state;
    step_t s;
    open_step(&s, comm, 1);
    uint8_t rows[4 * N];
    size_t size = s.m.c.tiny.size;
    mbl_gram_part_t part = {.fraction = 0.5,
                            .micro_batch = 5,
                            .timesteps = 4,
                            .slices = 1,
                            .seed = s.m.args.seed,
                            .step = s.m.args.step};
    form(&s, comm);
    double *whole = new_rows(&s.m.c, 1), *last = s.m.sum + (mbl_sets_count(&s.sets) - 1) * size;
    memcpy(whole, last, size * sizeof *whole);
    s.m.args.kl_scale = mbl_kl_part(&part, &s.m.own, rows);
    s.m.args.kl_rows = rows;
    mbl_gradient_stats_t stats = run_masked(&s.m, comm);
    s.options.kl_fraction = 0.5;
    take_step(&s);
    check_direction(&s, comm, "direction with some KL");
    assert_near(s.result.kl, stats.kl, 1e-5 * stats.kl);
    assert_true(relative_error_f64(last, whole, size) > 0.01);
    mbl_free(whole);
    close_step(&s);
}

/* Halves of a step: ratios are there, and a shrunk alpha lies between the solution and equal shares; its
 * direction is applied. */
static void alpha_that_shrinks(void **state) {
    mbl_comm_t *comm = *state;
    double raw[PARTS];
    for (int shrink = 0; shrink < 2; shrink++) {
        step_t s;
        open_step(&s, comm, 1);
        s.options.halves = true;
        s.options.shrink = shrink ? MBL_SHRINK_EQUAL : MBL_SHRINK_OFF;
        form(&s, comm);
        take_step(&s);
        assert_true(s.result.halves);
        check_direction(&s, comm, "direction");
        double variance = 0, distance = 0, factor = s.result.shrunk;
        for (size_t k = 0; k < PARTS; k++) {
            assert_true(isfinite(s.result.noise_ratio[k]) && s.result.noise_ratio[k] > -1);
            if (!shrink) {
                raw[k] = s.result.balance.alpha[k];
                continue;
            }
            assert_near(s.result.balance.alpha[k], 0.2 + factor * (raw[k] - 0.2), 1e-6);
            variance += pow(s.result.alpha_half[0][k] - s.result.alpha_half[1][k], 2) / 4;
            distance += pow(raw[k] - 0.2, 2);
        }
        assert_near(factor, shrink ? fmax(0, 1 - variance / distance) : 1, 1e-4);
        assert_true(!shrink || factor < 1);
        close_step(&s);
    }
}

/* The average and the steps between two solves are of the alpha that was applied. */
static void a_shrunk_alpha_is_averaged(void **state) {
    mbl_comm_t *comm = *state;
    for (int target = MBL_SHRINK_EQUAL; target <= MBL_SHRINK_AVERAGE; target++) {
        step_t s;
        double shrunk[PARTS], raw = 0;
        open_step(&s, comm, 1);
        s.options.shrink = (mbl_shrink_t)target;
        s.options.refresh_every = 2;
        take_step(&s);
        assert_true(s.result.refreshed && s.result.shrunk < 1);
        memcpy(shrunk, s.result.balance.alpha, sizeof shrunk);
        for (size_t k = 0; k < PARTS; k++) {
            assert_near(s.result.balance.alpha_mean[k], shrunk[k], 1e-12);
            assert_near(s.update.balance.alpha_mean[k], shrunk[k], 1e-12);
            raw = fmax(raw, fabs(s.result.alpha_raw[k] - shrunk[k]));
        }
        assert_true(raw > 1e-3); /* which is not what was solved for */
        form(&s, comm);
        take_step(&s);
        assert_false(s.result.refreshed);
        check_direction(&s, comm, "cached direction after shrinking");
        for (size_t k = 0; k < PARTS; k++)
            assert_near(s.result.balance.alpha[k], shrunk[k], 1e-12);
        take_step(&s);
        assert_true(s.result.refreshed);
        for (size_t k = 0; k < PARTS; k++)
            assert_near(s.result.balance.alpha_mean[k], 0.7 * shrunk[k] + 0.3 * s.result.balance.alpha[k],
                        1e-12);
        close_step(&s);
    }
}

/* A reward without scores at the last solve takes part in the next cached step with what an earlier one
 * found; one that no solve has had makes that step solve. */
static void a_reward_that_applies_again(void **state) {
    mbl_comm_t *comm = *state;
    for (int known = 0; known < 2; known++) {
        step_t s;
        open_step(&s, comm, 1);
        s.options.refresh_every = 3;
        if (known)
            take_step(&s);
        s.options.solve = true;
        s.stats[1] = (mbl_reward_stats_t){.valid = 0};
        const uint8_t of = s.m.masks.of[1];
        const size_t n = s.m.own.n;
        float *factors = s.m.own_a + n, kept[N];
        memcpy(kept, factors, n * sizeof *kept);
        memset(factors, 0, n * sizeof *factors);
        s.m.masks.of[1] = MBL_NO_MASK;
        take_step(&s);
        assert_true(s.result.refreshed && !s.result.balance.used[1]);
        s.options.solve = false;
        s.stats[1] = s.stats[0];
        s.m.masks.of[1] = of;
        memcpy(factors, kept, n * sizeof *factors);
        take_step(&s);
        assert_int_equal(s.result.refreshed, !known);
        if (known) {
            assert_int_equal(s.result.balance.n_used, PARTS);
            assert_true(s.result.balance.coefficient[1] > 0);
        }
        close_step(&s);
    }
}

int main(void) {
    mbl_comm_t *comm = open_ranks();
    if (!comm)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(a_solve_on_all_rows, comm),
        cmocka_unit_test_prestate(a_solve_on_half_the_rows, comm),
        cmocka_unit_test_prestate(a_cached_step, comm),
        cmocka_unit_test_prestate(the_common_part_once, comm),
        cmocka_unit_test_prestate(part_of_the_kl_term, comm),
        cmocka_unit_test_prestate(alpha_that_shrinks, comm),
        cmocka_unit_test_prestate(a_shrunk_alpha_is_averaged, comm),
        cmocka_unit_test_prestate(a_reward_that_applies_again, comm),
    };
    int failed = cmocka_run_group_tests_name("update masks", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
