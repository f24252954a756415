/* src/rl/alarms.c: every alarm with numbers that set it off, numbers that just do not, and how long it has
 * to last; and that its line says what was found. */
#include "support.h"

#include "rl/alarms.h"
#include "config/config.h"

#include <math.h>
#include <string.h>

enum { K = 3 };

typedef struct {
    mbl_alarm_limits_t limits;
    mbl_alarm_state_t state;
    mbl_alarm_findings_t findings;
    mbl_alarm_numbers_t numbers;
    double alpha[K];
    mbl_reward_stats_t stats[K];
    size_t outside[K];
} healthy_t;

/* A run in which nothing is wrong, under the default limits. */
static void make_healthy(healthy_t *h) {
    mbl_config_t *config;
    memset(h, 0, sizeof *h);
    assert_int_equal(mbl_config_parse("", 0, "run.yaml", NULL, 0, &config), MBL_OK);
    h->limits = config->alarms;
    mbl_config_free(config);
    for (size_t k = 0; k < K; k++) {
        h->alpha[k] = 1.0 / K;
        h->stats[k] =
            (mbl_reward_stats_t){.mean = 0.5, .std = 0.1, .valid = 100, .groups = 20, .flat_groups = 10};
    }
    h->numbers = (mbl_alarm_numbers_t){.old_deviate = 1e-3,
                                       .x0_norm = 0.8,
                                       .finite = true,
                                       .moved = true,
                                       .replicas_same = true,
                                       .solves = true,
                                       .solved = true,
                                       .used = K,
                                       .k = K,
                                       .alpha = h->alpha,
                                       .stats = h->stats,
                                       .outside = h->outside};
}

static void step(healthy_t *h) {
    mbl_alarms_check(&h->limits, &h->numbers, &h->state, &h->findings);
}

/* The numbers as they are set off `alarm` at the n-th step and no other alarm before or then. */
static void fires_after(healthy_t *h, mbl_alarm_t alarm, size_t n) {
    for (size_t i = 1; i <= n; i++) {
        step(h);
        for (int other = 0; other < MBL_ALARMS; other++)
            if (h->findings.found[other] != (other == (int)alarm && i == n))
                fail_msg("step %zu of %zu for %s: %s is %s", i, n, mbl_alarm_name(alarm),
                         mbl_alarm_name((mbl_alarm_t)other),
                         h->findings.found[other] ? "found" : "not found");
    }
    assert_int_equal(h->state.count[alarm], 1);
}

static void stays_quiet(healthy_t *h, size_t n) {
    for (size_t i = 0; i < n; i++) {
        step(h);
        for (int alarm = 0; alarm < MBL_ALARMS; alarm++)
            if (h->findings.found[alarm])
                fail_msg("step %zu: %s", i, mbl_alarm_name((mbl_alarm_t)alarm));
    }
}

static void says(const healthy_t *h, mbl_alarm_t alarm, const char *part) {
    char text[600], start[64];
    mbl_alarm_text(alarm, &h->limits, &h->findings, "ocr", text, sizeof text);
    snprintf(start, sizeof start, "%s: ", mbl_alarm_name(alarm));
    if (strncmp(text, start, strlen(start)) != 0 || !strstr(text, part))
        fail_msg("\"%s\" does not start with \"%s\" or lacks \"%s\"", text, start, part);
}

static void a_healthy_run_is_quiet(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    stays_quiet(&h, 1000);
    for (int i = 0; i < MBL_ALARMS; i++)
        assert_int_equal(h.state.count[i], 0);
}

static void adapters_that_are_equal_or_far_apart(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.numbers.old_deviate = 0;
    stays_quiet(&h, 2);
    h.numbers.old_deviate = 1e-30; /* starts the count afresh */
    stays_quiet(&h, 1);
    h.numbers.old_deviate = 0;
    fires_after(&h, MBL_ALARM_old_equals_new, 3);
    says(&h, MBL_ALARM_old_equals_new, "for 3 steps");
    make_healthy(&h);
    h.numbers.moved = false; /* the same, however the rollout policy lags or rounds */
    fires_after(&h, MBL_ALARM_old_equals_new, 3);
    make_healthy(&h);
    h.numbers.old_deviate = 0.5;
    stays_quiet(&h, 5);
    h.numbers.old_deviate = 0.51;
    fires_after(&h, MBL_ALARM_old_drift, 1);
    says(&h, MBL_ALARM_old_drift, "0.51 of its own length");
}

static void groups_without_variance(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.stats[1].flat_groups = 19; /* 95 % */
    stays_quiet(&h, 30);
    h.stats[1].flat_groups = 20;
    stays_quiet(&h, 9);
    h.stats[1].groups = h.stats[1].flat_groups = 0; /* no prompt of its kind was drawn: counts as before */
    stays_quiet(&h, 5);
    h.stats[1].groups = h.stats[1].flat_groups = 20;
    fires_after(&h, MBL_ALARM_no_variance, 1);
    assert_int_equal(h.findings.reward[MBL_ALARM_no_variance], 1);
    says(&h, MBL_ALARM_no_variance, "in 100 % of its groups all scores of ocr");
}

static void images_that_drift(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    stays_quiet(&h, 3);
    h.numbers.x0_norm = 0.8 * 1.24;
    stays_quiet(&h, 30);
    h.numbers.x0_norm = 0.8 * 0.74;
    fires_after(&h, MBL_ALARM_x0_norm_drift, 10);
    says(&h, MBL_ALARM_x0_norm_drift, "-26 % off");
    make_healthy(&h);
    stays_quiet(&h, 3);
    h.numbers.x0_norm = NAN;
    fires_after(&h, MBL_ALARM_x0_norm_drift, 10);
}

static void alpha_that_collapses_or_is_stale(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.alpha[0] = h.alpha[1] = 0.01, h.alpha[2] = 0.98;
    stays_quiet(&h, 30);
    h.alpha[0] = 0, h.alpha[2] = 0.99;
    stays_quiet(&h, 9);
    h.numbers.used = 1; /* a lone reward has all of it */
    stays_quiet(&h, 30);
    h.numbers.used = 2;
    fires_after(&h, MBL_ALARM_alpha_collapse, 10);
    assert_int_equal(h.findings.reward[MBL_ALARM_alpha_collapse], 2);
    says(&h, MBL_ALARM_alpha_collapse, "ocr holds 0.990 of alpha");
    make_healthy(&h);
    h.numbers.solved = false;
    stays_quiet(&h, 100);
    fires_after(&h, MBL_ALARM_alpha_stale, 1);
    says(&h, MBL_ALARM_alpha_stale, "101 steps ago (limit 100)");
    make_healthy(&h);
    h.alpha[0] = 1, h.alpha[1] = h.alpha[2] = 0;
    h.numbers.solves = h.numbers.solved = false; /* weights as configured */
    stays_quiet(&h, 300);
}

static void numbers_that_are_not_finite(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.numbers.finite = false;
    fires_after(&h, MBL_ALARM_non_finite, 1);
    assert_false(h.findings.give_up);
    says(&h, MBL_ALARM_non_finite, "1 steps in a row, which are left out");
    h.limits.non_finite = 3;
    step(&h);
    assert_true(h.findings.found[MBL_ALARM_non_finite] && !h.findings.give_up);
    h.numbers.finite = h.numbers.moved = true; /* counts afresh */
    stays_quiet(&h, 1);
    h.numbers.finite = h.numbers.moved = false;
    h.limits.old_equals_new = 1; /* no alarm of its own: these steps have a reason */
    for (int i = 1; i <= 3; i++) {
        step(&h);
        assert_true(h.findings.found[MBL_ALARM_non_finite]);
        assert_false(h.findings.found[MBL_ALARM_old_equals_new]);
        assert_int_equal(h.findings.give_up, i == 3);
    }
    says(&h, MBL_ALARM_non_finite, "3 steps in a row");
}

static void ranks_that_differ(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.numbers.replicas_same = false;
    fires_after(&h, MBL_ALARM_replica_mismatch, 1);
    says(&h, MBL_ALARM_replica_mismatch, "different adapters");
}

static void scorers_that_fail_or_leave_their_range(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.stats[2].valid = 99, h.stats[2].failed = 1, h.stats[2].na = 400;
    stays_quiet(&h, 5);
    h.stats[2].valid = 98, h.stats[2].failed = 2;
    h.stats[0].valid = 0, h.stats[0].failed = 100; /* the worst is named */
    fires_after(&h, MBL_ALARM_scorer_failed, 1);
    assert_int_equal(h.findings.reward[MBL_ALARM_scorer_failed], 0);
    says(&h, MBL_ALARM_scorer_failed, "100 % of the scores of ocr failed");
    make_healthy(&h);
    h.outside[1] = 1;
    fires_after(&h, MBL_ALARM_scorer_range, 1);
    assert_int_equal(h.findings.reward[MBL_ALARM_scorer_range], 1);
    says(&h, MBL_ALARM_scorer_range, "1 % of the scores of ocr lie outside");
}

/* None for `patience` steps, of a reward that is trained; one score starts the count afresh. */
static void rewards_without_scores(void **state) {
    static const bool active[K] = {true, false, true};
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.stats[1] = h.stats[2] = (mbl_reward_stats_t){.na = 100};
    stays_quiet(&h, 9);
    h.stats[1] = h.stats[2] = h.stats[0];
    stays_quiet(&h, 1);
    h.stats[2] = (mbl_reward_stats_t){.na = 100};
    fires_after(&h, MBL_ALARM_no_score, 10);
    assert_int_equal(h.findings.reward[MBL_ALARM_no_score], 2);
    says(&h, MBL_ALARM_no_score, "no image of the last 10 steps has a score of ocr");
    make_healthy(&h);
    h.numbers.active = active;
    h.stats[1] = (mbl_reward_stats_t){.na = 100};
    stays_quiet(&h, 50);
}

/* By more than a deviation of its scores, then or now, for `patience` steps. */
static void rewards_that_collapse(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    h.stats[0] = (mbl_reward_stats_t){
        .mean = 0.7, .std = 0.01, .valid = 7, .groups = 20}; /* too few to compare with */
    stays_quiet(&h, 1);
    h.stats[0] = h.stats[1];
    stays_quiet(&h, 1);
    h.stats[0].mean = 0.41;
    stays_quiet(&h, 30);
    h.stats[0].mean = 0.2;
    h.stats[0].std = 0.31; /* they vary more now */
    stays_quiet(&h, 30);
    h.stats[0].std = 0.001;
    stays_quiet(&h, 9);
    h.stats[0].valid = h.stats[0].groups = h.stats[0].flat_groups = 0; /* says nothing either way */
    stays_quiet(&h, 5);
    h.stats[0].valid = 100, h.stats[0].groups = 20;
    fires_after(&h, MBL_ALARM_reward_collapse, 1);
    assert_int_equal(h.findings.reward[MBL_ALARM_reward_collapse], 0);
    says(&h, MBL_ALARM_reward_collapse, "the mean of ocr is 3.0 standard deviations of its scores below");
}

/* Against a gradient or against an own part, of whichever reward; steps without cosines say nothing, and
 * rounding is no direction. */
static void directions_against_a_reward(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    double cos[K] = {0.5, 0.4, NAN}, part[K] = {0.2, -1e-7, NAN};
    h.numbers.cos = cos;
    h.numbers.cos_part = part;
    stays_quiet(&h, 50);
    part[1] = -0.2;
    stays_quiet(&h, 19);
    cos[0] = cos[1] = part[0] = part[1] = NAN;
    stays_quiet(&h, 10);
    cos[0] = -0.1, cos[1] = part[1] = part[0] = 0.3;
    fires_after(&h, MBL_ALARM_against_reward, 1);
    assert_int_equal(h.findings.reward[MBL_ALARM_against_reward], 0);
    says(&h, MBL_ALARM_against_reward, "now against ocr (least cosine -0.10");
    cos[0] = 0.1;
    stays_quiet(&h, 1);
    part[1] = -0.2;
    stays_quiet(&h, 19);
    bool active[K] = {true, false, true}; /* of a reward that the step does not train */
    make_healthy(&h);
    h.numbers.cos = cos;
    h.numbers.cos_part = part;
    h.numbers.active = active;
    stays_quiet(&h, 30);
    cos[0] = -0.3;
    stays_quiet(&h, 19);
    fires_after(&h, MBL_ALARM_against_reward, 1);
    assert_int_equal(h.findings.reward[MBL_ALARM_against_reward], 0);
}

static void what_is_switched_off_stays_quiet(void **state) {
    healthy_t h;
    (void)state;
    make_healthy(&h);
    stays_quiet(&h, 3);
    h.limits = (mbl_alarm_limits_t){.patience = 1,
                                    .no_score = MBL_ALARM_OFF,
                                    .no_variance = 1,
                                    .alpha_collapse = 1,
                                    .scorer_failed = 1,
                                    .scorer_range = 1};
    h.numbers.finite = h.numbers.replicas_same = h.numbers.solved = false;
    h.numbers.x0_norm = 100;
    h.alpha[0] = 1, h.alpha[1] = h.alpha[2] = 0;
    for (size_t k = 0; k < K; k++) {
        h.stats[k].flat_groups = h.stats[k].groups;
        h.outside[k] = h.stats[k].valid;
    }
    h.stats[1].valid = 0, h.stats[1].failed = 100;
    h.stats[2].mean = -1e9;
    double cos[K] = {-1, -1, -1};
    h.numbers.cos = h.numbers.cos_part = cos;
    h.numbers.old_deviate = 0;
    stays_quiet(&h, 200);
    h.numbers.old_deviate = 1e3;
    stays_quiet(&h, 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_run_is_quiet),
        cmocka_unit_test(adapters_that_are_equal_or_far_apart),
        cmocka_unit_test(groups_without_variance),
        cmocka_unit_test(images_that_drift),
        cmocka_unit_test(alpha_that_collapses_or_is_stale),
        cmocka_unit_test(numbers_that_are_not_finite),
        cmocka_unit_test(ranks_that_differ),
        cmocka_unit_test(scorers_that_fail_or_leave_their_range),
        cmocka_unit_test(rewards_without_scores),
        cmocka_unit_test(rewards_that_collapse),
        cmocka_unit_test(directions_against_a_reward),
        cmocka_unit_test(what_is_switched_off_stays_quiet),
    };
    return cmocka_run_group_tests_name("alarms", tests, NULL, NULL);
}
