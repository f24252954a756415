/* The gradient sets of a step: all K from two backward passes equal K separate ones, finite differences of
 * the NFT loss, and what must not matter (batching, ranks, threads, shortcuts). */
#include "tiny_pipeline.h"

#include "rl/gradient.h"
#include "rl/gram_part.h"

enum { N = 12, GROUP = 3, K = 3, R = 4, STEPS = 6, PADDING = 21 };
/* R = K + 1: the last part is an objective of its own, as weighted_sum has; reward 2 scored nobody. */
enum { UNSCORED = 2 };

static const char *const prompts[] = {"a red sign that says \"K7\"", "three blue circles",
                                      "green above purple", "two red squares"};
enum { PROMPTS = 4 };

/* ---- a case ---- */

typedef struct {
    tiny_t tiny;
    mbl_sampler_plan_t plan;
    mbl_batch_t batch;
    uint32_t prompt[N];
    int64_t sample[N];
    float a[R * N];
    mbl_gradient_args_t args;
    mbl_gradient_t *gradient;
} case_t;

/* Factors that are exact in f32 when multiplied with a power of two; some samples masked. */
static void make_factors(case_t *c) {
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < N; i++) {
            double a = round(24 * tiny_normal((uint32_t)(40 + r), i)) / 64;
            bool masked = r == UNSCORED || (r == 1 && i % 4 == 2);
            c->a[r * N + i] = (float)(masked ? 0 : fmax(-0.5, fmin(0.5, a)));
        }
}

static void make_batch(case_t *c) {
    size_t channels, height, width;
    mbl_pipeline_latent(c->tiny.pipeline, &channels, &height, &width);
    assert_ok(mbl_tensor_new(c->tiny.ops, c->tiny.stat, &c->batch.x0, 4, (size_t)N, channels, height, width));
    for (size_t i = 0; i < mbl_tensor_count(&c->batch.x0); i++)
        put_value(c->batch.x0.data, c->tiny.stat, i, 0.6 * tiny_normal(3, i));
    for (size_t i = 0; i < N; i++) {
        c->prompt[i] = (uint32_t)((i / GROUP * 3 + 1) % PROMPTS);
        c->sample[i] = (int64_t)i + 100;
    }
    c->batch.n = c->batch.n_global = N;
    c->batch.group_size = GROUP;
    c->batch.k = K;
    c->batch.prompt = c->prompt;
    c->batch.sample = c->sample;
}

static void open_case_of(case_t *c, mbl_dtype_t dtype, int threads, size_t heads, size_t picture) {
    memset(c, 0, sizeof *c);
    tiny_open(&c->tiny, dtype, threads, heads, picture, 2, 2, prompts, PROMPTS);
    assert_ok(mbl_sampler_plan(MBL_SOLVER_DPM2, STEPS, 3, &c->plan));
    make_batch(c);
    make_factors(c);
    c->args = (mbl_gradient_args_t){.batch = &c->batch,
                                    .conditions = &c->tiny.conditions,
                                    .current = &c->tiny.current,
                                    .old = &c->tiny.old,
                                    .plan = &c->plan,
                                    .timesteps = 4,
                                    .slices = 1,
                                    .seed = 77,
                                    .step = 5,
                                    .beta = 0.5,
                                    .clip = 6, /* clip / beta / (N timesteps) = 1/4 */
                                    .kl = 0.25,
                                    .a = c->a,
                                    .parts = R};
    assert_ok(mbl_gradient_new(c->tiny.pipeline, c->tiny.lora, 5, R, &c->gradient));
}

static void open_case(case_t *c, mbl_dtype_t dtype) {
    open_case_of(c, dtype, 1, 2, 8);
}

static void close_case(case_t *c) {
    mbl_gradient_free(c->gradient);
    mbl_tensor_free(c->tiny.ops, &c->batch.x0);
    tiny_close(&c->tiny);
}

/* Runs and copies rows [rows, P] out; what lies behind them is padding and stays zero. */
static mbl_gradient_stats_t run_with(const case_t *c, mbl_gradient_t *gradient,
                                     const mbl_gradient_args_t *args, double *rows) {
    size_t n = args->c ? 1 : args->parts + 1, length = c->tiny.size + PADDING;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats;
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &sets, 2, n, length));
    for (size_t i = 0; i < n * length; i++)
        ((double *)sets.data)[i] = 1e9; /* overwritten, not added to */
    assert_ok(mbl_gradient_run(gradient, args, &sets, &stats));
    for (size_t r = 0; r < n; r++) {
        const double *row = (const double *)sets.data + r * length;
        memcpy(rows + r * c->tiny.size, row, c->tiny.size * sizeof *rows);
        for (size_t i = c->tiny.size; i < length; i++)
            assert_near(row[i], 0, 0);
    }
    mbl_tensor_free(c->tiny.ops, &sets);
    return stats;
}

static mbl_gradient_stats_t run(const case_t *c, double *rows) {
    return run_with(c, c->gradient, &c->args, rows);
}

static double *new_rows(const case_t *c, size_t n) {
    double *rows = mbl_calloc(n * c->tiny.size, sizeof *rows);
    assert_non_null(rows);
    return rows;
}

static double norm_of(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

static void check_close(const double *got, const double *want, size_t n, double tolerance, const char *what,
                        size_t k) {
    double error = relative_error_f64(got, want, n);
    if (!(error <= tolerance))
        fail_msg("%s %zu: relative error %.3g, at most %.3g expected (norms %.6g, %.6g)", what, k, error,
                 tolerance, norm_of(got, n), norm_of(want, n));
}

/* All sets of one run against those of another, each relative to its own length. */
static void check_sets(const case_t *c, const double *got, const double *want, double tolerance,
                       const char *what) {
    size_t size = c->tiny.size;
    for (size_t r = 0; r <= R; r++) {
        if (r == UNSCORED)
            assert_near(norm_of(got + r * size, size), 0, 0);
        else
            check_close(got + r * size, want + r * size, size, tolerance, what, r);
    }
}

/* ---- two backward passes against K ---- */

static void check_separate_passes(case_t *c, double tolerance) {
    size_t size = c->tiny.size;
    double *sets = new_rows(c, R + 1), *separate = new_rows(c, 1), *sum = new_rows(c, 1);
    run(c, sets);
    for (size_t k = 0; k < R; k++) {
        double one[R] = {0};
        one[k] = 1;
        c->args.c = one;
        run(c, separate);
        c->args.c = NULL;
        for (size_t i = 0; i < size; i++)
            sum[i] = sets[k * size + i] + sets[R * size + i];
        check_close(sum, separate, size, tolerance, "gradient", k);
        assert_true(norm_of(separate, size) > 1e-3);
        if (k != UNSCORED) /* and the two parts are both there */
            assert_true(norm_of(sets + k * size, size) > 1e-3 * norm_of(separate, size));
    }
    assert_true(norm_of(sets + R * size, size) > 1e-3 * norm_of(separate, size));
    mbl_free(sets);
    mbl_free(separate);
    mbl_free(sum);
}

static const struct {
    mbl_dtype_t dtype;
    double tolerance;
} precisions[] = {{MBL_F64, 1e-10}, {MBL_F32, 1e-5}, {MBL_BF16, 2e-2}};
enum { PRECISIONS = sizeof precisions / sizeof *precisions };

static void all_sets_equal_separate_passes(void **state) {
    (void)state;
    for (size_t p = 0; p < PRECISIONS; p++) {
        case_t c;
        open_case(&c, precisions[p].dtype);
        check_separate_passes(&c, precisions[p].tolerance);
        c.args.kl = 0;
        check_separate_passes(&c, precisions[p].tolerance);
        close_case(&c);
    }
}

/* Known weights, one pass: sum_r c_r a_r + (sum_r c_r) c. */
static void one_pass_takes_any_weights(void **state) {
    static const double weights[][R] = {{0.3, 0.5, 0.1, 0.1}, {2, -1, 0.5, 0}, {1, -1, 0, 0}};
    (void)state;
    for (size_t p = 0; p < PRECISIONS; p++) {
        case_t c;
        open_case(&c, precisions[p].dtype);
        size_t size = c.tiny.size;
        double *sets = new_rows(&c, R + 1), *one = new_rows(&c, 1), *want = new_rows(&c, 1);
        run(&c, sets);
        for (size_t w = 0; w < 3; w++) {
            c.args.c = weights[w];
            run(&c, one);
            for (size_t i = 0; i < size; i++) {
                want[i] = 0;
                for (size_t r = 0; r < R; r++)
                    want[i] += weights[w][r] * (sets[r * size + i] + sets[R * size + i]);
            }
            check_close(one, want, size, precisions[p].tolerance, "weights", w);
        }
        mbl_free(sets);
        mbl_free(one);
        mbl_free(want);
        close_case(&c);
    }
}

/* ---- finite differences ---- */

/* The loss written out from method.md section 3, over rows (sample, timestep), in f64. */
typedef struct {
    case_t *c;
    size_t elements, rows;
    mbl_tape_t *tape;
    mbl_tensor_t xt, t, context, pooled, v; /* [N, ...], of one slot at a time */
    double *v_old, *v_ref, *x0, *noisy;     /* [rows, elements] */
    double *weight;                         /* [rows, 2]: w+ and w- at the base point */
} reference_t;

static void new_reference(case_t *c, reference_t *f) {
    size_t channels, height, width;
    mbl_pipeline_latent(c->tiny.pipeline, &channels, &height, &width);
    *f = (reference_t){.c = c, .elements = channels * height * width, .rows = c->args.timesteps * N};
    assert_ok(
        mbl_tape_new(c->tiny.model, c->tiny.lora, MBL_TAPE_NONE, N, height, width, TINY_TOKENS, &f->tape));
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &f->xt, 4, (size_t)N, channels, height, width));
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &f->v, 4, (size_t)N, channels, height, width));
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &f->t, 1, (size_t)N));
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &f->context, 3, (size_t)N, (size_t)TINY_TOKENS,
                             (size_t)TINY_HIDDEN));
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &f->pooled, 2, (size_t)N, (size_t)TINY_POOLED));
    assert_ok(
        mbl_conditions_gather(c->tiny.pipeline, &c->tiny.conditions, c->prompt, N, &f->context, &f->pooled));
    double **all[] = {&f->v_old, &f->v_ref, &f->x0, &f->noisy, &f->weight};
    for (size_t i = 0; i < 5; i++)
        *all[i] = mbl_calloc(f->rows * f->elements, sizeof(double));
}

static void free_reference(reference_t *f) {
    mbl_tape_free(f->tape);
    mbl_tensor_t *tensors[] = {&f->xt, &f->v, &f->t, &f->context, &f->pooled};
    for (size_t i = 0; i < 5; i++)
        mbl_tensor_free(f->c->tiny.ops, tensors[i]);
    double *all[] = {f->v_old, f->v_ref, f->x0, f->noisy, f->weight};
    for (size_t i = 0; i < 5; i++)
        mbl_free(all[i]);
}

/* x_t of every sample at position `slot` of its own order of timesteps. */
static void noise(reference_t *f, size_t slot) {
    const mbl_gradient_args_t *args = &f->c->args;
    float *eps = mbl_calloc(f->elements, sizeof *eps);
    for (size_t i = 0; i < N; i++) {
        uint32_t order[STEPS];
        uint64_t id = (uint64_t)f->c->sample[i];
        mbl_rng_t rng = mbl_rng(args->seed, MBL_RNG_TIMESTEPS, args->step, id);
        mbl_rng_permutation(&rng, order, STEPS);
        rng = mbl_rng(args->seed, MBL_RNG_TRAIN, args->step, id | (uint64_t)slot << 40);
        mbl_rng_normal(&rng, eps, f->elements);
        double t = f->c->plan.sigma[order[slot]];
        ((double *)f->t.data)[i] = t;
        for (size_t j = 0; j < f->elements; j++)
            ((double *)f->xt.data)[i * f->elements + j] =
                (1 - t) * ((double *)f->c->batch.x0.data)[i * f->elements + j] + t * (double)eps[j];
    }
    mbl_free(eps);
}

static const double *velocity(reference_t *f, const mbl_adapter_t *adapter) {
    mbl_mmdit_input_t input = {&f->xt, &f->t, &f->context, &f->pooled};
    assert_ok(mbl_mmdit_forward(f->c->tiny.model, adapter, &input, f->tape, &f->v));
    return f->v.data;
}

/* x0hat(+/-) - x0 of one element. */
static double residual(const reference_t *f, size_t i, size_t j, size_t row, double t, double v, int sign) {
    double beta = f->c->args.beta, v_old = f->v_old[row * f->elements + j];
    double mixed = (1 - sign * beta) * v_old + sign * beta * v;
    return ((double *)f->xt.data)[i * f->elements + j] - t * mixed -
           ((double *)f->c->batch.x0.data)[i * f->elements + j];
}

/* Losses of all R parts (in loss [R], KL included) and the mean KL, with the adapter's present values.
 * freeze: take w+ and w- from this point. */
static double losses(reference_t *f, bool freeze, double *loss) {
    const mbl_gradient_args_t *args = &f->c->args;
    double all_kl = 0;
    memset(loss, 0, R * sizeof *loss);
    for (size_t slot = 0, row = 0; slot < args->timesteps; slot++) {
        noise(f, slot);
        for (size_t i = 0; freeze && i < N * f->elements; i++) {
            size_t at = row * f->elements + i;
            f->v_old[at] = i == 0 ? velocity(f, args->old)[i] : ((double *)f->v.data)[i];
        }
        for (size_t i = 0; freeze && i < N * f->elements; i++) {
            size_t at = row * f->elements + i;
            f->v_ref[at] = i == 0 ? velocity(f, NULL)[i] : ((double *)f->v.data)[i];
        }
        const double *v = velocity(f, args->current);
        for (size_t i = 0; i < N; i++, row++) {
            double t = ((double *)f->t.data)[i], size = (double)f->elements, kl = 0, part[2];
            for (int s = 0; s < 2; s++) {
                double sum = 0, squares = 0;
                for (size_t j = 0; j < f->elements; j++) {
                    double e = residual(f, i, j, row, t, v[i * f->elements + j], s ? -1 : 1);
                    sum += fabs(e);
                    squares += e * e;
                }
                if (freeze)
                    f->weight[2 * row + (size_t)s] = fmax(sum / size, 1e-5);
                part[s] = squares / size / f->weight[2 * row + (size_t)s];
            }
            for (size_t j = 0; j < f->elements; j++)
                kl += pow(v[i * f->elements + j] - f->v_ref[row * f->elements + j], 2) / size;
            all_kl += kl / (double)f->rows;
            for (size_t r = 0; r < R; r++) {
                double mix = (double)f->c->a[r * N + i] + 0.5;
                loss[r] += (args->clip / args->beta * (mix * part[0] + (1 - mix) * part[1]) + args->kl * kl) /
                           (double)f->rows;
            }
        }
    }
    return all_kl;
}

/* Losses with entry `at` of the current adapter moved by `by`. */
static void losses_at(reference_t *f, mbl_tensor_t *values, size_t at, double by, double *loss) {
    double *value = (double *)values->data + at, before = *value;
    *value += by;
    assert_ok(mbl_adapter_set(f->c->tiny.model, &f->c->tiny.current, values));
    losses(f, false, loss);
    *value = before;
}

static void check_differences(case_t *c) {
    size_t size = c->tiny.size;
    double *sets = new_rows(c, R + 1), loss[R], near[4][R], rewards = 0;
    reference_t f;
    mbl_tensor_t values;
    new_reference(c, &f);
    mbl_gradient_stats_t stats = run(c, sets);
    double kl = losses(&f, true, loss);
    for (size_t k = 0; k < K; k++)
        rewards += (loss[k] - c->args.kl * kl) / K;
    assert_near(stats.loss, rewards, 1e-12 * fabs(rewards));
    assert_near(stats.kl, c->args.kl > 0 ? kl : 0, 1e-12 * kl);
    assert_int_equal(stats.rows, f.rows);
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &values, 1, size));
    assert_ok(mbl_tensor_copy(c->tiny.ops, &values, &c->tiny.current.weights));
    for (size_t entry = 0; entry < 20; entry++) {
        const double h = 1e-3;
        mbl_rng_t rng = mbl_rng(1, MBL_RNG_STUDY, 500, entry);
        size_t at = mbl_rng_below(&rng, (uint32_t)size);
        for (int s = 0; s < 4; s++)
            losses_at(&f, &values, at, (double[]){-2 * h, -h, h, 2 * h}[s], near[s]);
        for (size_t r = 0; r < R; r++) {
            double difference = (near[0][r] - 8 * near[1][r] + 8 * near[2][r] - near[3][r]) / (12 * h);
            double *a = sets + r * size, *common = sets + R * size, gradient = a[at] + common[at];
            double typical = norm_of(common, size) / sqrt((double)size);
            assert_near(gradient, difference, 1e-6 * (typical + fabs(difference)));
        }
    }
    assert_ok(mbl_adapter_set(c->tiny.model, &c->tiny.current, &values));
    mbl_tensor_free(c->tiny.ops, &values);
    mbl_free(sets);
    free_reference(&f);
}

static void gradients_pass_finite_differences(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F64);
    check_differences(&c);
    c.args.kl = 0;
    c.args.beta = 0.1;
    c.args.clip = 5;
    check_differences(&c);
    close_case(&c);
}

/* ---- what must not matter ---- */

/* Where old holds current's values, skipping its forward pass changes nothing. */
static void shortcut_of_equal_adapters(void **state) {
    (void)state;
    for (size_t p = 0; p < 2; p++)
        for (int kl = 0; kl < 2; kl++) {
            const double tolerance = p == 0 ? 1e-12 : 1e-6;
            case_t c;
            open_case(&c, precisions[p].dtype);
            size_t size = c.tiny.size;
            double *far = new_rows(&c, R + 1), *near = new_rows(&c, R + 1), weights[R] = {1, 2, 3, 4};
            tiny_set_adapter(&c.tiny, &c.tiny.old, 1, 0.2);
            c.args.kl = kl ? 0.25 : 0;
            mbl_gradient_stats_t long_way = run(&c, far);
            c.args.old_is_current = true;
            mbl_gradient_stats_t shortcut = run(&c, near);
            for (size_t r = 0; r < R + (size_t)kl; r++)
                if (r != UNSCORED)
                    check_close(near + r * size, far + r * size, size, tolerance, "shortcut", r);
            /* without KL there is no common part: rounding apart (the two forward passes need not agree to
             * the last bit) */
            double common = norm_of(far + R * size, size) / norm_of(far, size);
            assert_true(kl ? common > 1e-3 : common < tolerance);
            assert_near(norm_of(near + R * size, size) > 0, kl, 0);
            assert_near(shortcut.loss, long_way.loss, tolerance * fabs(long_way.loss));
            assert_near(shortcut.kl, long_way.kl, tolerance);
            c.args.c = weights;
            run(&c, near);
            c.args.old_is_current = false;
            run(&c, far);
            check_close(near, far, size, tolerance, "shortcut of one set", 0);
            mbl_free(far);
            mbl_free(near);
            close_case(&c);
        }
}

/* Two updates share five timesteps as 3 and 2: weighted by that they make up the whole. */
static void slices_partition_the_timesteps(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t n = (R + 1) * c.tiny.size;
    double *whole = new_rows(&c, R + 1), *part = new_rows(&c, R + 1), *sum = new_rows(&c, R + 1), loss = 0;
    c.args.timesteps = 5;
    mbl_gradient_stats_t all = run(&c, whole);
    c.args.slices = 2;
    for (c.args.slice = 0; c.args.slice < 2; c.args.slice++) {
        mbl_gradient_stats_t some = run(&c, part);
        double share = c.args.slice ? 0.4 : 0.6;
        assert_int_equal(some.rows, c.args.slice ? 2 * N : 3 * N);
        loss += share * some.loss;
        for (size_t i = 0; i < n; i++)
            sum[i] += share * part[i];
    }
    check_sets(&c, sum, whole, 1e-6, "sum of slices");
    assert_near(loss, all.loss, 1e-6 * all.loss);
    assert_true(relative_error_f64(part, whole, n) > 0.01); /* a slice alone is something else */
    mbl_free(whole);
    mbl_free(part);
    mbl_free(sum);
    close_case(&c);
}

/* Rows in two parts, one after the other into the same sets, are the whole; the second part with known
 * weights completes the weighted sum of the first. */
static void parts_of_rows_make_up_the_whole(void **state) {
    static const double weights[R] = {0.5, 0.3, 0.1, 0.1};
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t size = c.tiny.size;
    uint8_t part_of[4 * N];
    double *whole = new_rows(&c, R + 1), *part = new_rows(&c, R + 1), *one = new_rows(&c, 1),
           *want = new_rows(&c, 1);
    mbl_tensor_t sets;
    for (size_t i = 0; i < 4 * N; i++)
        part_of[i] = i % 7 < 3 || i / N == 2; /* runs of 4 and 3 rows, and a timestep of one part only */
    mbl_gradient_stats_t all = run(&c, whole), first, rest;
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, size));
    c.args.part_of = part_of;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &first));
    memcpy(part, sets.data, (R + 1) * size * sizeof *part);
    c.args.part = 1;
    c.args.add = true;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &rest));
    check_sets(&c, sets.data, whole, 1e-6, "sum of parts");
    assert_near(first.loss + rest.loss, all.loss, 1e-6 * all.loss);
    assert_near(first.kl + rest.kl, all.kl, 1e-6 * all.kl);
    assert_int_equal(first.rows + rest.rows, all.rows);
    assert_true(first.rows > 0 && rest.rows > 0 && relative_error_f64(part, whole, R * size) > 0.01);
    c.args.add = false;
    c.args.c = weights;
    run(&c, one);
    for (size_t i = 0; i < size; i++)
        for (size_t r = 0; r < R; r++) {
            one[i] += weights[r] * (part[r * size + i] + part[R * size + i]);
            want[i] += weights[r] * (whole[r * size + i] + whole[R * size + i]);
        }
    check_close(one, want, size, 1e-5, "weighted sum in two parts", 0);
    mbl_tensor_free(c.tiny.ops, &sets);
    mbl_free(whole);
    mbl_free(part);
    mbl_free(one);
    mbl_free(want);
    close_case(&c);
}

/* The rows of a partial Gram matrix: as many as asked for, spread over the chunks, of this slice only, the
 * same for any number of ranks and other ones in another step. */
/* With shares, a set is a_r + c over the rows that count for its reward, and the last set the KL term. */
static void every_reward_over_its_own_rows(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t size = c.tiny.size;
    uint8_t part_of[4 * N];
    float share[R * N];
    double *own = new_rows(&c, R + 1), *some = new_rows(&c, R + 1), *plain = new_rows(&c, R + 1),
           *with_kl = new_rows(&c, R + 1);
    c.args.kl = 0.25;
    run(&c, with_kl);
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < N; i++)
            share[r * N + i] = (i + r) % 3 ? 1.5F : 0;
    c.args.share = share;
    run(&c, own);
    c.args.share = NULL;
    c.args.kl = 0;
    run(&c, plain);
    for (size_t i = 0; i < size; i++)
        with_kl[R * size + i] -= plain[R * size + i];
    check_close(own + R * size, with_kl + R * size, size, 1e-5, "KL term", R);
    for (size_t r = 0; r < R; r++) {
        for (size_t i = 0; i < 4 * N; i++)
            part_of[i] = (i % N + r) % 3 == 0;
        c.args.part_of = part_of;
        run(&c, some);
        for (size_t i = 0; i < size; i++)
            some[r * size + i] = 1.5 * (some[r * size + i] + some[R * size + i]);
        check_close(own + r * size, some + r * size, size, 1e-5, "own rows", r);
    }
    mbl_free(own);
    mbl_free(some);
    mbl_free(plain);
    mbl_free(with_kl);
    close_case(&c);
}

static void part_of_the_gram_matrix(void **state) {
    enum { SAMPLES = 40, SIZE = 4, SLOTS = 6, SPLIT = 12 };
    int64_t sample[SAMPLES];
    uint8_t whole[SLOTS * SAMPLES], two[2][SLOTS * SAMPLES], other[SLOTS * SAMPLES];
    mbl_batch_t batch = {.n = SAMPLES, .n_global = SAMPLES, .group_size = SIZE, .sample = sample};
    mbl_gram_part_t options = {
        .fraction = 0.3, .micro_batch = 9, .timesteps = SLOTS, .slice = 1, .slices = 2, .seed = 3, .step = 8};
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = (int64_t)i;
    /* chunks of 2 groups (8 samples), 5 chunks, 3 timesteps: 4.5 of 15 units */
    double share = mbl_gram_part(&options, &batch, whole);
    assert_near(share, 5.0 / 15, 1e-12);
    for (size_t chunk = 0; chunk < 5; chunk++) {
        size_t rows = 0;
        for (size_t slot = 0; slot < SLOTS; slot++)
            for (size_t i = 8 * chunk; i < 8 * chunk + 8; i++) {
                rows += whole[slot * SAMPLES + i] == MBL_PART_GRAM;
                assert_true(slot % 2 == 1 || whole[slot * SAMPLES + i] == MBL_PART_REST);
                assert_int_equal(whole[slot * SAMPLES + i], whole[slot * SAMPLES + 8 * chunk]);
            }
        assert_int_equal(rows, 8);
    }
    for (size_t rank = 0; rank < 2; rank++) { /* 3 groups and 7: chunk 1 lies on both */
        mbl_batch_t own = batch;
        own.sample = sample + rank * SPLIT;
        own.n = rank ? SAMPLES - SPLIT : SPLIT;
        assert_near(mbl_gram_part(&options, &own, two[rank]), share, 0);
        for (size_t slot = 0; slot < SLOTS; slot++)
            for (size_t i = 0; i < own.n; i++)
                assert_int_equal(two[rank][slot * own.n + i], whole[slot * SAMPLES + rank * SPLIT + i]);
    }
    options.halves = true; /* the same rows; 2 or 3 of the 5 units in either half */
    assert_near(mbl_gram_part(&options, &batch, other), share, 0);
    size_t rows[3] = {0};
    for (size_t i = 0; i < sizeof whole; i++) {
        assert_int_equal(other[i] == MBL_PART_REST, whole[i] == MBL_PART_REST);
        rows[other[i]]++;
    }
    assert_int_equal(rows[MBL_PART_GRAM], 24);
    assert_int_equal(rows[MBL_PART_HALF], 16);
    options.halves = false;
    options.step++;
    mbl_gram_part(&options, &batch, other);
    assert_memory_not_equal(other, whole, sizeof whole);
    options.fraction = 0.01;
    assert_near(mbl_gram_part(&options, &batch, other), 1.0 / 30, 1e-12); /* one group */
    options.fraction = 1;
    assert_near(mbl_gram_part(&options, &batch, other), 1, 0);
}

static void micro_batch_does_not_matter(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    double *want = new_rows(&c, R + 1), *got = new_rows(&c, R + 1);
    mbl_gradient_stats_t all = run(&c, want);
    for (size_t rows = 1; rows <= 16; rows += rows == 1 ? 11 : 4) { /* 1, 12, 16 against 5 */
        mbl_gradient_t *gradient;
        assert_ok(mbl_gradient_new(c.tiny.pipeline, c.tiny.lora, rows, R + 2, &gradient));
        mbl_gradient_stats_t stats = run_with(&c, gradient, &c.args, got);
        check_sets(&c, got, want, 1e-6, "micro-batches");
        assert_near(stats.loss, all.loss, 1e-6 * all.loss);
        assert_near(stats.kl, all.kl, 1e-6 * all.kl);
        mbl_gradient_free(gradient);
    }
    mbl_free(want);
    mbl_free(got);
    close_case(&c);
}

/* Two ranks with whole groups each: their shares add up to what one rank has. */
static void shares_of_ranks_add_up(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t n = (R + 1) * c.tiny.size;
    double *whole = new_rows(&c, R + 1), *share = new_rows(&c, R + 1), *sum = new_rows(&c, R + 1);
    double loss = 0, kl = 0;
    mbl_gradient_stats_t all = run(&c, whole);
    for (size_t first = 0, count = GROUP; first < N; first += count, count = N - GROUP) {
        float a[R * N];
        mbl_batch_t batch = c.batch;
        mbl_gradient_args_t args = c.args;
        batch.n = count;
        batch.prompt += first;
        batch.sample += first;
        batch.x0 = mbl_tensor_rows(&c.batch.x0, first, count);
        for (size_t r = 0; r < R; r++)
            memcpy(a + r * count, c.a + r * N + first, count * sizeof *a);
        args.batch = &batch;
        args.a = a;
        mbl_gradient_stats_t stats = run_with(&c, c.gradient, &args, share);
        loss += stats.loss;
        kl += stats.kl;
        for (size_t i = 0; i < n; i++)
            sum[i] += share[i];
    }
    check_sets(&c, sum, whole, 1e-6, "sum of shares");
    assert_near(loss, all.loss, 1e-6 * all.loss);
    assert_near(kl, all.kl, 1e-6 * all.kl);
    mbl_free(whole);
    mbl_free(share);
    mbl_free(sum);
    close_case(&c);
}

/* The same bits again, with fresh buffers too, and with two threads; on a model large enough to be shared. */
static void repeats_to_the_bit(void **state) {
    (void)state;
    for (size_t p = 1; p < PRECISIONS; p++) {
        case_t c, two;
        mbl_gradient_t *fresh;
        open_case_of(&c, precisions[p].dtype, 1, 8, 16);
        open_case_of(&two, precisions[p].dtype, 2, 8, 16);
        size_t bytes = (R + 1) * c.tiny.size * sizeof(double);
        double *first = new_rows(&c, R + 1), *again = new_rows(&c, R + 1);
        mbl_gradient_stats_t stats = run(&c, first);
        run(&c, again);
        assert_memory_equal(again, first, bytes);
        assert_ok(mbl_gradient_new(c.tiny.pipeline, c.tiny.lora, 5, R, &fresh));
        run_with(&c, fresh, &c.args, again);
        assert_memory_equal(again, first, bytes);
        mbl_gradient_free(fresh);
        mbl_gradient_stats_t other = run(&two, again);
        assert_memory_equal(again, first, bytes);
        assert_near(other.loss, stats.loss, 0);
        mbl_free(first);
        mbl_free(again);
        close_case(&c);
        close_case(&two);
    }
}

/* The noise and the order of timesteps belong to seed and step. */
static void noise_depends_on_the_step(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    double *a = new_rows(&c, R + 1), *b = new_rows(&c, R + 1);
    run(&c, a);
    c.args.step++;
    run(&c, b);
    assert_true(relative_error_f64(b, a, (R + 1) * c.tiny.size) > 0.01);
    c.args.step--;
    c.args.seed++;
    run(&c, b);
    assert_true(relative_error_f64(b, a, (R + 1) * c.tiny.size) > 0.01);
    mbl_free(a);
    mbl_free(b);
    close_case(&c);
}

/* ---- stopping, bad arguments, no memory ---- */

static void stop_is_heeded(void **state) {
    case_t c;
    int stop = 1;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats = {.loss = 77};
    (void)state;
    open_case(&c, MBL_F32);
    c.args.stop = &stop;
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, c.tiny.size));
    assert_int_equal(mbl_gradient_run(c.gradient, &c.args, &sets, &stats), MBL_ERR_STOPPED);
    assert_near(stats.loss, 77, 0);
    stop = 0;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &stats));
    assert_int_equal(stats.rows, 4 * N);
    mbl_tensor_free(c.tiny.ops, &sets);
    close_case(&c);
}

/* What a listener to `ready` saw: how often, and the sets as they stood then. */
typedef struct {
    const mbl_tensor_t *sets;
    double *seen;
    size_t size, calls, n;
    mbl_status_t answer;
} listener_t;

static mbl_status_t listen(void *context, size_t n) {
    listener_t *l = context;
    l->calls++;
    l->n = n;
    for (size_t r = 0; r < R + 1; r++)
        memcpy(l->seen + r * l->size, (const double *)l->sets->data + r * l->sets->stride[0],
               l->size * sizeof *l->seen);
    return l->answer;
}

/* The reward sets are final when `ready` is called, once, and the common part is not; also where this rank
 * has no row to run. What `ready` answers ends the run. */
static void ready_comes_before_the_last_pass(void **state) {
    case_t c;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats;
    uint8_t part_of[4 * N];
    (void)state;
    open_case(&c, MBL_F32);
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, c.tiny.size));
    listener_t l = {.sets = &sets, .seen = new_rows(&c, R + 1), .size = c.tiny.size};
    c.args.ready = listen;
    c.args.context = &l;
    memset(part_of, 0, sizeof part_of);
    for (size_t i = 3 * N; i < 4 * N; i++)
        part_of[i] = 1; /* the last timestep is not asked for */
    for (int parts = 0; parts < 2; parts++) {
        c.args.part_of = parts ? part_of : NULL;
        l.calls = 0;
        assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &stats));
        assert_int_equal(l.calls, 1);
        assert_int_equal(l.n, R);
        assert_memory_equal(l.seen, sets.data, R * c.tiny.size * sizeof *l.seen);
        assert_true(relative_error_f64(l.seen + R * c.tiny.size, (double *)sets.data + R * c.tiny.size,
                                       c.tiny.size) > 1e-3);
    }
    l.answer = MBL_ERR_COMM;
    assert_int_equal(mbl_gradient_run(c.gradient, &c.args, &sets, &stats), MBL_ERR_COMM);
    l.answer = MBL_OK;
    memset(part_of, 1, sizeof part_of);
    l.calls = 0;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &stats));
    assert_int_equal(l.calls, 1);
    assert_int_equal(stats.rows, 0);
    mbl_free(l.seen);
    mbl_tensor_free(c.tiny.ops, &sets);
    close_case(&c);
}

static mbl_status_t try(const case_t *c, const mbl_gradient_args_t *args, size_t rows, size_t length) {
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats;
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &sets, 2, rows, length));
    mbl_status_t status = mbl_gradient_run(c->gradient, args, &sets, &stats);
    mbl_tensor_free(c->tiny.ops, &sets);
    return status;
}

static void bad_arguments(void **state) {
    case_t c;
    double one[R + 1] = {1};
    (void)state;
    open_case(&c, MBL_F32);
    size_t size = c.tiny.size;
    mbl_gradient_args_t bad[6];
    for (size_t i = 0; i < 6; i++)
        bad[i] = c.args;
    bad[0].parts = R + 1;
    bad[1].parts = K - 1;
    bad[2].timesteps = 0;
    bad[3].timesteps = STEPS + 1;
    bad[4].slices = bad[4].slice = 5;
    bad[5].c = one; /* one set, and place for five */
    mbl_fail_quiet(1);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(try(&c, &bad[i], i == 1 ? K : R + 1 + (i == 0), size), MBL_ERR_ARG);
    assert_int_equal(try(&c, &c.args, R, size), MBL_ERR_ARG);
    assert_int_equal(try(&c, &c.args, R + 1, size - 1), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    assert_ok(try(&c, &c.args, R + 1, size));
    close_case(&c);
}

static void survives_without_memory(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    mbl_gradient_t *gradient = NULL;
    size_t live = mbl_mem_live(), n = 0;
    mbl_status_t status = MBL_ERR_MEM;
    mbl_fail_quiet(1);
    while (status != MBL_OK && n < 200) {
        mbl_mem_fail_at(++n);
        status = mbl_gradient_new(c.tiny.pipeline, c.tiny.lora, 3, R, &gradient);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || (status == MBL_ERR_MEM && mbl_mem_live() == live));
    }
    mbl_fail_quiet(0);
    assert_in_range(n, 20, 199);
    assert_true(mbl_gradient_bytes(gradient) > 0);
    mbl_gradient_free(gradient);
    mbl_gradient_free(NULL);
    assert_int_equal(mbl_mem_live(), live);
    close_case(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sets_equal_separate_passes),
        cmocka_unit_test(one_pass_takes_any_weights),
        cmocka_unit_test(gradients_pass_finite_differences),
        cmocka_unit_test(shortcut_of_equal_adapters),
        cmocka_unit_test(slices_partition_the_timesteps),
        cmocka_unit_test(parts_of_rows_make_up_the_whole),
        cmocka_unit_test(every_reward_over_its_own_rows),
        cmocka_unit_test(part_of_the_gram_matrix),
        cmocka_unit_test(micro_batch_does_not_matter),
        cmocka_unit_test(shares_of_ranks_add_up),
        cmocka_unit_test(repeats_to_the_bit),
        cmocka_unit_test(noise_depends_on_the_step),
        cmocka_unit_test(ready_comes_before_the_last_pass),
        cmocka_unit_test(stop_is_heeded),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(survives_without_memory),
    };
    return cmocka_run_group_tests_name("gradient", tests, NULL, NULL);
}
