/* The gradient sets of a step: all K from two backward passes equal K separate ones, and finite differences
 * of the NFT loss.   ctest-backends: fake cuda */
#include "gradient_case.h"

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

static void all_sets_equal_separate_passes(void **state) {
    (void)state;
    for (size_t p = times(0, 1); p < PRECISIONS; p++) {
        case_t c;
        open_case(&c, precisions[p].dtype);
        for (size_t kl = 0; kl < times(2, 1); kl++) {
            check_separate_passes(&c, precisions[p].tolerance);
            c.args.kl = 0;
        }
        close_case(&c);
    }
}

/* Known weights, one pass: sum_r c_r a_r + (sum_r c_r) c. */
static void one_pass_takes_any_weights(void **state) {
    static const double weights[][R] = {{0.3, 0.5, 0.1, 0.1}, {2, -1, 0.5, 0}, {1, -1, 0, 0}};
    (void)state;
    for (size_t p = times(0, 1); p < PRECISIONS; p++) {
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

/* The loss written out from src/rl/README.md, over rows (sample, timestep), in f64. */
typedef struct {
    case_t *c;
    size_t elements, rows;
    mbl_tape_t *tape;
    mbl_conditions_t conditions;
    mbl_tensor_t xt, t, v;              /* [N, ...], of one slot at a time */
    double *v_old, *v_ref;              /* [rows, elements] */
    double *weight;                     /* [rows, 2]: w+ and w- at the base point */
    double *x0, *noisy, *velocity, *at; /* on the host: [N, elements], and t [N] */
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
    assert_ok(mbl_pipeline_conditions(c->tiny.pipeline, N, &f->conditions));
    assert_ok(mbl_conditions_gather(c->tiny.ops, &c->tiny.conditions, c->prompt, &f->conditions));
    double **all[] = {&f->v_old, &f->v_ref, &f->weight, &f->noisy, &f->velocity, &f->at};
    for (size_t i = 0; i < 6; i++)
        assert_non_null(*all[i] = mbl_calloc(f->rows * f->elements, sizeof(double)));
    f->x0 = host_of(c->tiny.ops, &c->batch.x0);
}

static void free_reference(reference_t *f) {
    mbl_tape_free(f->tape);
    mbl_conditions_free(f->c->tiny.ops, &f->conditions);
    mbl_tensor_t *tensors[] = {&f->xt, &f->v, &f->t};
    for (size_t i = 0; i < 3; i++)
        mbl_tensor_free(f->c->tiny.ops, tensors[i]);
    double *all[] = {f->v_old, f->v_ref, f->weight, f->noisy, f->velocity, f->at, f->x0};
    for (size_t i = 0; i < 7; i++)
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
        f->at[i] = t;
        for (size_t j = 0; j < f->elements; j++)
            f->noisy[i * f->elements + j] = (1 - t) * f->x0[i * f->elements + j] + t * (double)eps[j];
    }
    assert_ok(mbl_tensor_upload(f->c->tiny.ops, &f->t, f->at));
    assert_ok(mbl_tensor_upload(f->c->tiny.ops, &f->xt, f->noisy));
    mbl_free(eps);
}

static const double *velocity(reference_t *f, const mbl_adapter_t *adapter) {
    mbl_dit_input_t input = {.x = &f->xt, .t = &f->t, .conditions = &f->conditions};
    assert_ok(mbl_dit_forward(f->c->tiny.model, adapter, &input, f->tape, &f->v));
    assert_ok(mbl_tensor_download(f->c->tiny.ops, &f->v, f->velocity));
    return f->velocity;
}

/* x0hat(+/-) - x0 of one element. */
static double residual(const reference_t *f, size_t i, size_t j, size_t row, double t, double v, int sign) {
    double beta = f->c->args.beta, v_old = f->v_old[row * f->elements + j];
    double mixed = (1 - sign * beta) * v_old + sign * beta * v;
    return f->noisy[i * f->elements + j] - t * mixed - f->x0[i * f->elements + j];
}

/* Losses of all R parts (in loss [R], KL included) and the mean KL, with the adapter's present values.
 * freeze: take w+ and w- from this point. */
static double losses(reference_t *f, bool freeze, double *loss) {
    const mbl_gradient_args_t *args = &f->c->args;
    double all_kl = 0;
    memset(loss, 0, R * sizeof *loss);
    for (size_t slot = 0, row = 0; slot < args->timesteps; slot++) {
        noise(f, slot);
        if (freeze) {
            size_t bytes = N * f->elements * sizeof(double);
            memcpy(f->v_old + row * f->elements, velocity(f, args->old), bytes);
            memcpy(f->v_ref + row * f->elements, velocity(f, NULL), bytes);
        }
        const double *v = velocity(f, args->current);
        for (size_t i = 0; i < N; i++, row++) {
            double t = f->at[i], size = (double)f->elements, kl = 0, part[2];
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

/* Losses with entry `at` of the current adapter, whose values are these, moved by `by`. */
static void losses_at(reference_t *f, const mbl_tensor_t *values, double *host, size_t at, double by,
                      double *loss) {
    double before = host[at];
    host[at] += by;
    assert_ok(mbl_tensor_upload(f->c->tiny.ops, values, host));
    assert_ok(mbl_adapter_set(f->c->tiny.model, &f->c->tiny.current, values));
    losses(f, false, loss);
    host[at] = before;
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
    double *host = host_of(c->tiny.ops, &values);
    for (size_t entry = 0; entry < times(SANITIZED ? 4 : 20, 2); entry++) {
        const double h = 1e-3;
        mbl_rng_t rng = mbl_rng(1, MBL_RNG_STUDY, 500, entry);
        size_t at = mbl_rng_below(&rng, (uint32_t)size);
        for (int s = 0; s < 4; s++)
            losses_at(&f, &values, host, at, (double[]){-2 * h, -h, h, 2 * h}[s], near[s]);
        for (size_t r = 0; r < R; r++) {
            double difference = (near[0][r] - 8 * near[1][r] + 8 * near[2][r] - near[3][r]) / (12 * h);
            double *a = sets + r * size, *common = sets + R * size, gradient = a[at] + common[at];
            double typical = norm_of(common, size) / sqrt((double)size);
            assert_near(gradient, difference, 1e-6 * (typical + fabs(difference)));
        }
    }
    push_host(c->tiny.ops, &values, host);
    assert_ok(mbl_adapter_set(c->tiny.model, &c->tiny.current, &values));
    mbl_tensor_free(c->tiny.ops, &values);
    mbl_free(sets);
    free_reference(&f);
}

static void gradients_pass_finite_differences(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F64);
    for (size_t i = 0; i < times(2, 1); i++) {
        check_differences(&c);
        c.args.kl = 0;
        c.args.beta = 0.1;
        c.args.clip = 5;
    }
    close_case(&c);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sets_equal_separate_passes),
        cmocka_unit_test(one_pass_takes_any_weights),
        cmocka_unit_test(gradients_pass_finite_differences),
    };
    return cmocka_run_group_tests_name("gradient", tests, NULL, NULL);
}
