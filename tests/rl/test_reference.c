/* marble_reference against the released code's formulas (tests/golden/make_reference.py): alpha after every
 * solve and the direction of every step, from scores and a linear model v = W phi. */
#include "support.h"

#include "comm/comm.h"
#include "rl/advantage.h"
#include "rl/reference.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { GROUP = 4, N = 16, MICRO = 8, SLOTS = 2, E = 3, P = 2, K = 3, SIZE = E * P, STEPS = 4, EVERY = 2 };
static const double BETA = 0.4, CLIP = 1.5, KL = 0.05, RHO = 0.7;

typedef struct {
    double x0[N * E], noise[SLOTS * N * E], phi[SLOTS * N * P], t[SLOTS * N], w_old[SIZE], w_ref[SIZE];
    double weights[K], floor;
    float a[K * N], raw[K * N];
    uint8_t valid[(K + 1) * N];
    size_t micro[N];
} case_t;

static void read_array(const json_t *object, const char *key, double *out, size_t n) {
    const json_t *array = json_object_get(object, key);
    assert_int_equal(json_array_size(array), n);
    for (size_t i = 0; i < n; i++)
        out[i] = json_number_value(json_array_get(array, i));
}

/* Advantages from the scores by groups, then the rows in the shuffled order. */
static void read_scores(const json_t *one, case_t *c) {
    mbl_score_t scores[N * K];
    mbl_reward_stats_t stats[K];
    float a[K * N], raw[K * N];
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < N; i++) {
            json_t *value = json_array_get(json_array_get(json_object_get(one, "scores"), k), i);
            scores[i * K + k] = json_is_null(value)
                                    ? (mbl_score_t){0, MBL_SCORE_NA}
                                    : (mbl_score_t){json_number_value(value), MBL_SCORE_VALID};
        }
    mbl_batch_t batch = {.n = N, .n_global = N, .group_size = GROUP, .k = K, .scores = scores, .all = scores};
    mbl_advantage_options_t options = {.clip = CLIP, .unclipped = raw};
    assert_int_equal(mbl_advantage(&options, &batch, a, stats), MBL_OK);
    for (size_t i = 0; i < N; i++) {
        size_t from = (size_t)json_integer_value(json_array_get(json_object_get(one, "order"), i));
        c->micro[i] = i / MICRO;
        for (size_t k = 0; k < K; k++) {
            c->a[k * N + i] = a[k * N + from];
            c->raw[k * N + i] = raw[k * N + from];
        }
    }
}

static void read_case(const json_t *one, case_t *c) {
    read_array(one, "x0", c->x0, N * E);
    read_array(one, "noise", c->noise, SLOTS * N * E);
    read_array(one, "phi", c->phi, SLOTS * N * P);
    read_array(one, "t", c->t, SLOTS * N);
    read_array(one, "w_old", c->w_old, SIZE);
    read_array(one, "w_ref", c->w_ref, SIZE);
    read_array(one, "weights", c->weights, K);
    c->floor = json_number_value(json_object_get(one, "floor"));
    read_scores(one, c);
}

/* J'u, J'h and J'dkl of a row (src/rl/README.md), J v = phi for each row of W. */
static void row_gradients(const case_t *c, const double *w, size_t slot, size_t i, double *u, double *h,
                          double *dkl) {
    const double *phi = c->phi + (slot * N + i) * P;
    double t = c->t[slot * N + i], e[E], d[E], away[E], plus = 0, minus = 0;
    for (size_t j = 0; j < E; j++) {
        double v = 0, v_old = 0, v_ref = 0, x0 = c->x0[i * E + j];
        for (size_t p = 0; p < P; p++) {
            v += w[j * P + p] * phi[p];
            v_old += c->w_old[j * P + p] * phi[p];
            v_ref += c->w_ref[j * P + p] * phi[p];
        }
        e[j] = (1 - t) * x0 + t * c->noise[(slot * N + i) * E + j] - t * v_old - x0;
        d[j] = v - v_old;
        away[j] = v - v_ref;
        plus += fabs(e[j] - t * BETA * d[j]) / E;
        minus += fabs(e[j] + t * BETA * d[j]) / E;
    }
    double sum = 1 / plus + 1 / minus, difference = 1 / plus - 1 / minus;
    for (size_t j = 0; j < E; j++)
        for (size_t p = 0; p < P; p++) {
            u[j * P + p] = -2 * t * BETA / E * (e[j] * sum - t * BETA * d[j] * difference) * phi[p];
            h[j * P + p] = t * BETA / E * (t * BETA * d[j] * sum - e[j] * difference) * phi[p];
            dkl[j * P + p] = 2 * away[j] / E * phi[p];
        }
}

/* The sets of a micro-batch as mbl_gradient_run makes them with its masks, the KL term apart. */
static mbl_sets_t micro_sets(case_t *c, const double *w, size_t micro, size_t slot,
                             double sets[MBL_SETS_MAX][SIZE]) {
    mbl_comm_t *comm;
    mbl_masks_t masks;
    mbl_reference_t reference = {.raw = c->raw, .valid = c->valid, .micro = c->micro};
    assert_int_equal(mbl_comm_open("self", 0, &comm), MBL_OK);
    assert_int_equal(mbl_reference_masks(comm, &reference, N, K, micro, &masks), MBL_OK);
    mbl_comm_close(comm);
    mbl_sets_t layout = mbl_sets(K, &masks, true);
    memset(sets, 0, mbl_sets_count(&layout) * sizeof *sets);
    for (size_t i = 0; i < N; i++) {
        double u[SIZE], h[SIZE], dkl[SIZE], rows = N * SLOTS, policy = CLIP / BETA / rows;
        if (c->micro[i] != micro)
            continue;
        row_gradients(c, w, slot, i, u, h, dkl);
        for (size_t s = 0; s < SIZE; s++) {
            for (size_t k = 0; k < K; k++)
                sets[k][s] += policy * mbl_masks_weight(&masks, k, i, N) * (double)c->a[k * N + i] * u[s];
            for (size_t m = 0; m < masks.count; m++)
                sets[K + m][s] += policy * mbl_masks_weight(&masks, masks.first[m], i, N) * h[s];
            sets[K + masks.count][s] += KL / rows * dkl[s];
        }
    }
    return layout;
}

static void add_solved(case_t *c, const double *w, size_t micro, size_t slot, mbl_balance_state_t *balance,
                       mbl_balance_step_t *step, double *direction) {
    double sets[MBL_SETS_MAX][SIZE], gram[MBL_SETS_MAX * MBL_SETS_MAX] = {0};
    mbl_sets_t layout = micro_sets(c, w, micro, slot, sets);
    size_t count = mbl_sets_count(&layout);
    mbl_balance_options_t options = {.method = MBL_METHOD_REFERENCE,
                                     .sets = &layout,
                                     .floor = c->floor,
                                     .rho = RHO,
                                     .weights = c->weights};
    for (size_t i = 0; i < count * count; i++)
        for (size_t s = 0; s < SIZE; s++)
            gram[i] += sets[i / count][s] * sets[i % count][s];
    assert_int_equal(mbl_balance_local(&options, gram, K, balance, step), MBL_OK);
    for (size_t s = 0; s < SIZE; s++)
        for (size_t j = 0; j < count; j++)
            direction[s] += step->coefficient[j] * sets[j][s];
}

static void add_cached(const case_t *c, const double *w, size_t slot, size_t i, const double *alpha_mean,
                       double *direction) {
    float factors[N];
    double u[SIZE], h[SIZE], dkl[SIZE], rows = N * SLOTS;
    mbl_reference_factors(c->raw, N, K, alpha_mean, CLIP, factors);
    row_gradients(c, w, slot, i, u, h, dkl);
    for (size_t s = 0; s < SIZE; s++)
        direction[s] += CLIP / BETA / rows * ((double)factors[i] * u[s] + h[s]) + KL / rows * dkl[s];
}

static void compare(const double *found, const double *wanted, size_t n, double tolerance, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (!(fabs(found[i] - wanted[i]) <= tolerance))
            fail_msg("%s %zu: %.12g, the released code has %.12g", what, i, found[i], wanted[i]);
}

/* The schedule of the loop: all micro-batches solve in the first step, then one at every EVERY-th step. */
static void run_case(const json_t *one) {
    case_t c;
    mbl_balance_state_t balance = {0};
    size_t age = 0;
    read_case(one, &c);
    for (size_t at = 0; at < STEPS; at++) {
        const json_t *golden = json_array_get(json_object_get(one, "steps"), at);
        const json_t *solutions = json_object_get(golden, "solutions");
        double w[SIZE], wanted[SIZE], direction[SIZE] = {0}, alpha[K], mean[K];
        size_t solved = 0;
        bool warmup = at < MBL_REFERENCE_WARMUP, due = warmup || age >= EVERY;
        read_array(golden, "w", w, SIZE);
        for (size_t micro = 0; micro < N / MICRO; micro++)
            for (size_t slot = 0; slot < SLOTS; slot++)
                if (warmup || (due && micro + slot == 0)) {
                    mbl_balance_step_t step;
                    add_solved(&c, w, micro, slot, &balance, &step, direction);
                    for (size_t k = 0; k < K; k++)
                        alpha[k] = json_number_value(json_array_get(json_array_get(solutions, solved), k));
                    compare(step.alpha, alpha, K, 1e-6, "alpha");
                    solved++;
                } else
                    for (size_t i = micro * MICRO; i < (micro + 1) * MICRO; i++)
                        add_cached(&c, w, slot, i, balance.alpha_mean, direction);
        assert_int_equal(json_array_size(solutions), solved);
        age = due ? 1 : age + 1;
        read_array(golden, "alpha_mean", mean, K);
        read_array(golden, "direction", wanted, SIZE);
        compare(balance.alpha_mean, mean, K, 1e-6, "alphabar");
        compare(direction, wanted, SIZE, 1e-6, "direction");
    }
}

static void agrees_with_the_released_code(void **state) {
    json_error_t error;
    json_t *cases = json_load_file(MBL_SOURCE_DIR "/tests/golden/reference.json", 0, &error), *one;
    size_t at;
    (void)state;
    if (!cases)
        fail_msg("reference.json: %s", error.text);
    assert_int_equal(json_array_size(cases), 3);
    json_array_foreach(cases, at, one) run_case(one);
    json_decref(cases);
}

/* By hand: u_1 = e_1, u_2 = 2 e_2 after weights 1 and 2 on unit gradients, so alpha = (4, 1) / 5 and
 * D = m (4/5 e_1 + 2/5 e_2), m = 2 for lengths 1 and 3. */
static void weights_multiply_the_unit_gradients(void **state) {
    static const double gram[] = {1, 0, 0, 0, 9, 0, 0, 0, 0}, weights[] = {1, 2};
    mbl_balance_options_t options = {.method = MBL_METHOD_REFERENCE, .rho = 0.5, .weights = weights};
    mbl_balance_state_t balance = {.alpha_mean = {0.2, 0.6}, .seen = {true, true}};
    mbl_balance_step_t step;
    (void)state;
    assert_int_equal(mbl_balance_local(&options, gram, 2, &balance, &step), MBL_OK);
    assert_near(step.alpha[0], 0.8, 1e-14);
    assert_near(step.coefficient[0], 2 * 0.8, 1e-14);
    assert_near(step.coefficient[1], 2 * 0.2 * 2 / 3, 1e-14);
    assert_near(balance.alpha_mean[0], 0.5, 1e-14);
    static const double lone[] = {0, 0, 0, 0, 9,
                                  0, 0, 0, 0}; /* the missing one decays, nothing is rescaled */
    assert_int_equal(mbl_balance_local(&options, lone, 2, &balance, &step), MBL_OK);
    assert_near(step.coefficient[1], 1, 1e-14);
    assert_near(balance.alpha_mean[0], 0.25, 1e-14);
    assert_near(balance.alpha_mean[1], 0.7, 1e-14);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_released_code),
        cmocka_unit_test(weights_multiply_the_unit_gradients),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
