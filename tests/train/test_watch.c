/* src/train/watch.c: what the alarms look at, over ranks.
 * ctest-ranks: 1 2 3   ctest-backends: fake cuda */
#include "mirror.h"
#include "ranks.h"

#include "train/watch.h"

#include <math.h>
#include <string.h>

enum { SIZE = 100, PADDED = 112, N = 4, E = 12, K = 2 };

static mbl_comm_t *comm;
static mbl_ops_t *ops;

static void make_policy(mbl_policy_t *policy) {
    memset(policy, 0, sizeof *policy);
    policy->ops = ops;
    policy->room = SIZE;
    policy->current = mirror_new(ops, MBL_F32, 1, PADDED, 0, 0, 0);
    policy->old = mirror_new(ops, MBL_F32, 1, PADDED, 0, 0, 0);
    for (size_t i = 0; i < SIZE; i++) {
        mirror_put(&policy->current, i, (double)i - 20.5);
        mirror_put(&policy->old, i, 1 / ((double)i + 1));
    }
    mirror_push(&policy->current);
    mirror_push(&policy->old);
}

static void free_policy(mbl_policy_t *policy) {
    mirror_free(&policy->current);
    mirror_free(&policy->old);
}

/* Turns one bit of the last rank's vector round. */
static void flip(const mbl_tensor_t *vector, size_t i) {
    ((uint32_t *)mirror_at(vector->data))[i] ^= comm->rank == comm->size - 1;
    mirror_push(vector);
}

/* One bit of the last rank's vector is turned round, in turn at its beginning, middle and end. */
static void one_bit_of_one_rank(void **state) {
    mbl_policy_t policy;
    bool same = false;
    (void)state;
    make_policy(&policy);
    assert_int_equal(mbl_watch_replicas(comm, &policy, &same), MBL_OK);
    assert_true(same);
    for (size_t i = 0; i < SIZE; i += 33)
        for (int vector = 0; vector < 2; vector++) {
            const mbl_tensor_t *flipped = vector ? &policy.old : &policy.current;
            flip(flipped, i);
            assert_int_equal(mbl_watch_replicas(comm, &policy, &same), MBL_OK);
            assert_int_equal(same, comm->size == 1);
            flip(flipped, i);
        }
    mirror_put(&policy.old, SIZE, comm->rank); /* padding */
    mirror_push(&policy.old);
    assert_int_equal(mbl_watch_replicas(comm, &policy, &same), MBL_OK);
    assert_true(same);
    free_policy(&policy);
}

/* Latents of rank r are all r + 1; scores of color lie in [0, 1], those of jpeg in [-1000, 0]. */
static void images_and_ranges(void **state) {
    static const char yaml[] = "rewards: [{name: hue, type: color}, {name: jpeg}]";
    mbl_score_t scores[N * K] = {
        {1.5, MBL_SCORE_VALID}, {-3, MBL_SCORE_VALID}, {1, MBL_SCORE_VALID},     {0.1, MBL_SCORE_VALID},
        {7, MBL_SCORE_NA},      {9, MBL_SCORE_FAILED}, {-1e-9, MBL_SCORE_VALID}, {-1001, MBL_SCORE_VALID},
    };
    mbl_config_t *config;
    mbl_watch_t watch;
    mbl_batch_t batch = {
        .n = N, .n_global = N * (size_t)comm->size, .group_size = 2, .k = K, .scores = scores};
    (void)state;
    assert_int_equal(mbl_config_parse(yaml, sizeof yaml - 1, "run.yaml", NULL, 0, &config), MBL_OK);
    batch.x0 = mirror_new(ops, MBL_F32, 4, N, E, 1, 1);
    double squares = 0;
    for (int r = 1; r <= comm->size; r++)
        squares += (double)(r * r) / comm->size;
    for (size_t i = 0; i < N * E; i++)
        mirror_put(&batch.x0, i, (comm->rank + 1) * (i % 2 ? 1 : -1));
    mirror_push(&batch.x0);
    assert_int_equal(mbl_watch_epoch(comm, ops, config, &batch, &watch), MBL_OK);
    assert_near(watch.x0_norm, sqrt(squares), 1e-12);
    assert_int_equal(watch.outside[0], comm->size);
    assert_int_equal(watch.outside[1], 2 * comm->size);
    mirror_free(&batch.x0);
    mbl_config_free(config);
}

/* warn goes on; stop fails with the line of the alarm, on every rank, also where one alone found it. */
static void the_verdict(void **state) {
    static const char yaml[] = "rewards: [{name: ocr}, {name: jpeg}]\nalarms: {on_alarm: stop}";
    mbl_alarm_findings_t findings;
    mbl_config_t *config;
    (void)state;
    assert_int_equal(mbl_config_parse(yaml, sizeof yaml - 1, "run.yaml", NULL, 0, &config), MBL_OK);
    memset(&findings, 0, sizeof findings);
    assert_int_equal(mbl_watch_verdict(comm, config, &findings, 3), MBL_OK);
    findings.found[MBL_ALARM_scorer_failed] = comm->rank == 0;
    findings.value[MBL_ALARM_scorer_failed] = 0.5;
    findings.reward[MBL_ALARM_scorer_failed] = 1;
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(mbl_watch_verdict(comm, config, &findings, 3), MBL_ERR_ALARM);
    mbl_log_set_level(MBL_LOG_INFO);
    if (comm->rank == 0)
        assert_non_null(
            strstr(mbl_fail_message(), "step 3: alarm scorer_failed: 50 % of the scores of jpeg"));
    assert_int_equal(mbl_status_exit_code(MBL_ERR_ALARM), 1);
    assert_int_equal(mbl_status_exit_code(MBL_ERR_DEVICE), 71);
    config->alarms.on_alarm = MBL_ON_ALARM_WARN;
    assert_int_equal(mbl_watch_verdict(comm, config, &findings, 3), MBL_OK);
    mbl_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bit_of_one_rank),
        cmocka_unit_test(images_and_ranges),
        cmocka_unit_test(the_verdict),
    };
    need_backend();
    comm = open_ranks();
    if (!comm || mbl_ops_open(test_backend(), 1, &ops) != MBL_OK || mbl_comm_attach(comm, ops) != MBL_OK)
        return 1;
    mbl_log_set_rank(comm->rank, comm->size);
    int failed = cmocka_run_group_tests_name("watch", tests, NULL, NULL);
    (void)mbl_comm_attach(comm, NULL);
    mbl_ops_close(ops);
    mbl_comm_close(comm);
    return failed;
}
