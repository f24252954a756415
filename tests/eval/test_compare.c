/* Bootstrap intervals, paired comparisons and z-scores: by hand, against numpy
 * (tests/golden/make_compare.py), and by what defines them. */
#include "support.h"

#include "base/mem.h"
#include "base/rng.h"
#include "eval/compare.h"

#include <jansson.h>
#include <math.h>

#define V(x)                                                                                                 \
    { (x), MBL_SCORE_VALID }
#define NA                                                                                                   \
    { 0, MBL_SCORE_NA }
#define FAILED                                                                                               \
    { 0, MBL_SCORE_FAILED }

enum { MANY = 400 };

static void interval_is(mbl_interval_t got, double value, double low, double high, double tolerance) {
    const double g[3] = {got.value, got.low, got.high}, want[3] = {value, low, high};
    for (int i = 0; i < 3; i++)
        if (isnan(want[i]) || isnan(g[i]))
            assert_int_equal(isnan(g[i]) != 0, isnan(want[i]) != 0);
        else
            assert_near(g[i], want[i], tolerance);
}

/* ---- by hand ---- */

/* Four images of two prompts, two rewards; the second applies to the first prompt only. */
static const uint32_t two_prompts[] = {0, 1, 0, 1};
static const mbl_compare_t small = {4, 2, 2, two_prompts, 400, 7};
static const mbl_score_t first[] = {V(0), V(2), V(1), NA, V(0), V(4), V(1), NA};
static const mbl_score_t second[] = {V(1), V(2), V(1), NA, V(0.5), FAILED, V(0), NA};

static void means(void **state) {
    const mbl_score_t *tables[] = {first, second};
    double mean[2], deviation[2];
    mbl_compare_score_t out[3];
    (void)state;
    mbl_compare_scale(4, 2, tables, 2, mean, deviation);
    assert_near(mean[0], 4.5 / 8, 1e-15);
    assert_near(deviation[0], sqrt((4.25 - 8 * 0.5625 * 0.5625) / 8), 1e-15);
    assert_near(mean[1], 8.0 / 3, 1e-15);
    assert_near(deviation[1], sqrt(8.0 / 9), 1e-15);
    assert_int_equal(mbl_compare_scores(&small, first, mean, deviation, out), MBL_OK);
    /* of two prompts, worth 0 and 1, a resample has the mean 0 or 1 one time in four each */
    interval_is(out[0].mean, 0.5, 0, 1, 1e-15);
    assert_int_equal(out[0].n, 4);
    interval_is(out[1].mean, 3, NAN, NAN, 1e-15); /* one prompt says nothing of others */
    assert_int_equal(out[1].n, 2);
    assert_int_equal(out[1].na, 2);
    double z0 = (0.5 - mean[0]) / deviation[0], z1 = (3 - mean[1]) / deviation[1];
    assert_near(out[2].mean.value, (z0 + z1) / 2, 1e-14);
    assert_int_equal(out[2].n, 4);
    /* both prompts the first: 0 and 3; both the second: 1, and the second reward is absent */
    double ends[2] = {((0 - mean[0]) / deviation[0] + z1) / 2, (1 - mean[0]) / deviation[0]};
    assert_near(out[2].mean.low, fmin(ends[0], ends[1]), 1e-14);
    assert_near(out[2].mean.high, fmax(ends[0], ends[1]), 1e-14);
    assert_int_equal(mbl_compare_scores(&small, second, mean, deviation, out), MBL_OK);
    assert_int_equal(out[1].failed, 1);
    assert_int_equal(out[1].n, 1);
}

static void pairs(void **state) {
    static const double deviation[] = {0.5, 2};
    mbl_compare_pair_t out[3], back[3];
    (void)state;
    assert_int_equal(mbl_compare_pair(&small, first, second, deviation, out), MBL_OK);
    /* differences +1, 0 | +0.5, -1: won, tied, won, lost */
    interval_is(out[0].difference, 0.125, -0.5, 0.75, 1e-15);
    interval_is(out[0].win_rate, 2.5 / 4, 0.25, 1, 1e-15);
    assert_int_equal(out[0].n, 4);
    assert_int_equal(out[0].won, 2);
    assert_int_equal(out[0].tied, 1);
    assert_int_equal(out[0].lost, 1);
    interval_is(out[1].difference, 0, NAN, NAN, 1e-15); /* one image is valid in both */
    assert_int_equal(out[1].n, 1);
    assert_int_equal(out[1].tied, 1);
    assert_near(out[2].difference.value, (0.125 / 0.5 + 0) / 2, 1e-15);
    assert_int_equal(out[2].won, 2); /* by image: (2 + 0) / 2, 0, 1, -2 */
    assert_int_equal(out[2].tied, 1);
    assert_int_equal(mbl_compare_pair(&small, second, first, deviation, back), MBL_OK);
    for (int j = 0; j < 3; j++) { /* the other way round: the same, mirrored */
        interval_is(back[j].difference, -out[j].difference.value, -out[j].difference.high,
                    -out[j].difference.low, 1e-12);
        interval_is(back[j].win_rate, 1 - out[j].win_rate.value, 1 - out[j].win_rate.high,
                    1 - out[j].win_rate.low, 1e-12);
        assert_int_equal(back[j].won, out[j].lost);
    }
}

static void nothing_to_count(void **state) {
    static const mbl_score_t none[] = {NA, NA, NA, FAILED, NA, NA, NA, NA},
                             same[] = {V(0.1), V(3), V(0.1), V(3), V(0.1), V(3), V(0.1), V(3)};
    const mbl_score_t *tables[] = {none}, *equal[] = {same, same};
    double mean[2], deviation[2];
    mbl_compare_score_t out[3];
    mbl_compare_pair_t pair[3];
    (void)state;
    mbl_compare_scale(4, 2, tables, 1, mean, deviation);
    assert_int_equal(mbl_compare_scores(&small, none, mean, deviation, out), MBL_OK);
    for (int j = 0; j < 3; j++) {
        interval_is(out[j].mean, NAN, NAN, NAN, 0);
        assert_int_equal(out[j].n, 0);
    }
    assert_int_equal(out[2].failed, 1);
    assert_int_equal(out[2].na, 3);
    assert_int_equal(mbl_compare_pair(&small, none, first, deviation, pair), MBL_OK);
    interval_is(pair[2].win_rate, NAN, NAN, NAN, 0);
    mbl_compare_scale(4, 2, equal, 2, mean, deviation);
    assert_near(deviation[0], 0, 0); /* also where 0.1 is not a binary number */
    assert_int_equal(mbl_compare_scores(&small, same, mean, deviation, out), MBL_OK);
    interval_is(out[1].mean, 3, 3, 3, 0);
    interval_is(out[2].mean, 0, 0, 0, 0);
    assert_int_equal(mbl_compare_pair(&small, same, same, deviation, pair), MBL_OK);
    interval_is(pair[2].win_rate, 0.5, 0.5, 0.5, 0);
    assert_int_equal(pair[2].tied, 4);
}

/* ---- by definition ---- */

static void normal_scores(mbl_score_t *scores, size_t n) {
    mbl_rng_t rng = mbl_rng(3, MBL_RNG_STUDY, 1, 0);
    float value[2 * MANY];
    mbl_rng_normal(&rng, value, n);
    for (size_t i = 0; i < n; i++)
        scores[i] = (mbl_score_t){(double)value[i], MBL_SCORE_VALID};
}

/* Of many prompts with an image each, the interval is the normal one; a second image of every prompt with
 * the same score changes nothing, while as an image of another prompt it would narrow it by sqrt 2. */
static void images_of_a_prompt_go_together(void **state) {
    static mbl_score_t scores[2 * MANY];
    static uint32_t prompt[2 * MANY], apart[2 * MANY];
    double mean, deviation, width[3];
    mbl_compare_score_t out[2];
    (void)state;
    normal_scores(scores, MANY);
    for (size_t i = 0; i < MANY; i++) {
        scores[MANY + i] = scores[i];
        prompt[i] = prompt[MANY + i] = (uint32_t)i;
    }
    for (size_t i = 0; i < 2 * MANY; i++)
        apart[i] = (uint32_t)i;
    const mbl_compare_t cases[] = {{MANY, 1, MANY, prompt, 2000, 1},
                                   {2 * MANY, 1, MANY, prompt, 2000, 1},
                                   {2 * MANY, 1, 2 * MANY, apart, 2000, 1}};
    for (int i = 0; i < 3; i++) {
        const mbl_score_t *tables[] = {scores};
        mbl_compare_scale(cases[i].images, 1, tables, 1, &mean, &deviation);
        assert_int_equal(mbl_compare_scores(&cases[i], scores, &mean, &deviation, out), MBL_OK);
        width[i] = out[0].mean.high - out[0].mean.low;
        assert_true(out[0].mean.low < mean && mean < out[0].mean.high);
    }
    double normal = 2 * 1.96 * deviation / sqrt(MANY);
    assert_near(width[0] / normal, 1, 0.06);
    assert_near(width[1], width[0], 1e-12);
    assert_near(width[2] / width[0], sqrt(0.5), 0.06);
}

/* ---- numpy ---- */

static double number(const json_t *value) {
    return json_is_null(value) ? NAN : json_number_value(value);
}

static void interval_is_json(mbl_interval_t got, const json_t *want) {
    assert_int_equal(json_array_size(want), 3);
    interval_is(got, number(json_array_get(want, 0)), number(json_array_get(want, 1)),
                number(json_array_get(want, 2)), 1e-12);
}

static void read_table(const json_t *one, size_t t, size_t n, mbl_score_t *out) {
    const json_t *values = json_array_get(json_object_get(one, "value"), t),
                 *states = json_array_get(json_object_get(one, "state"), t);
    assert_int_equal(json_array_size(values), n);
    for (size_t i = 0; i < n; i++)
        out[i] = (mbl_score_t){number(json_array_get(values, i)),
                               (mbl_score_state_t)json_integer_value(json_array_get(states, i))};
}

static void check_case(const json_t *one) {
    uint32_t prompt[64];
    mbl_score_t table[2][256];
    const mbl_score_t *tables[] = {table[0], table[1]};
    double mean[8], deviation[8];
    mbl_compare_score_t out[9];
    mbl_compare_pair_t pair[9];
    const json_t *prompts = json_object_get(one, "prompt");
    mbl_compare_t c = {.images = json_array_size(prompts),
                       .k = json_array_size(json_object_get(one, "mean")),
                       .prompts = (size_t)json_integer_value(json_object_get(one, "prompts")),
                       .prompt = prompt,
                       .resamples = (size_t)json_integer_value(json_object_get(one, "resamples")),
                       .seed = (uint64_t)json_integer_value(json_object_get(one, "seed"))};
    for (size_t i = 0; i < c.images; i++)
        prompt[i] = (uint32_t)json_integer_value(json_array_get(prompts, i));
    for (size_t t = 0; t < 2; t++)
        read_table(one, t, c.images * c.k, table[t]);
    mbl_compare_scale(c.images, c.k, tables, 2, mean, deviation);
    for (size_t j = 0; j < c.k; j++) {
        assert_near(mean[j], number(json_array_get(json_object_get(one, "mean"), j)), 1e-12);
        assert_near(deviation[j], number(json_array_get(json_object_get(one, "deviation"), j)), 1e-12);
    }
    for (size_t t = 0; t < 2; t++) {
        assert_int_equal(mbl_compare_scores(&c, table[t], mean, deviation, out), MBL_OK);
        for (size_t j = 0; j <= c.k; j++)
            interval_is_json(out[j].mean,
                             json_array_get(json_array_get(json_object_get(one, "scores"), t), j));
    }
    assert_int_equal(mbl_compare_pair(&c, table[0], table[1], deviation, pair), MBL_OK);
    for (size_t j = 0; j <= c.k; j++) {
        const json_t *counts = json_array_get(json_object_get(one, "won_tied_lost"), j);
        interval_is_json(pair[j].difference, json_array_get(json_object_get(one, "pair"), j));
        interval_is_json(pair[j].win_rate, json_array_get(json_object_get(one, "win_rate"), j));
        assert_int_equal(pair[j].won, json_integer_value(json_array_get(counts, 0)));
        assert_int_equal(pair[j].tied, json_integer_value(json_array_get(counts, 1)));
        assert_int_equal(pair[j].lost, json_integer_value(json_array_get(counts, 2)));
    }
}

static void as_numpy(void **state) {
    json_error_t error;
    json_t *cases = json_load_file(MBL_SOURCE_DIR "/tests/golden/compare.json", 0, &error), *one;
    size_t at;
    (void)state;
    if (!cases)
        fail_msg("compare.json:%d: %s", error.line, error.text);
    assert_int_equal(json_array_size(cases), 3);
    json_array_foreach(cases, at, one) check_case(one);
    json_decref(cases);
}

static void without_memory(void **state) {
    static const double mean[2], deviation[2];
    mbl_compare_score_t out[3];
    mbl_compare_pair_t pair[3];
    size_t live = mbl_mem_live();
    (void)state;
    for (size_t at = 1; at <= 3; at++) {
        mbl_mem_fail_at(at);
        assert_int_equal(mbl_compare_scores(&small, first, mean, deviation, out), MBL_ERR_MEM);
        mbl_mem_fail_at(at);
        assert_int_equal(mbl_compare_pair(&small, first, second, deviation, pair), MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
    mbl_mem_fail_at(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means),
        cmocka_unit_test(pairs),
        cmocka_unit_test(nothing_to_count),
        cmocka_unit_test(images_of_a_prompt_go_together),
        cmocka_unit_test(as_numpy),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
