/* What one of two replicas that goes bad costs over real sockets, once it is set aside: it is killed, hangs,
 * is fifty times as slow, or answers garbage; no score is lost. Beside it, at once, a server that was alone
 * from the start. With an argument, the seconds of each measurement: longer ones, which hold it to 5 %. */
#include "oip_server.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

enum { SIDE = 8, PIXELS = 3 * SIDE * SIDE, BATCH = 2, N = 4096, ROUNDS = 5 };
static const double ANSWER = 0.03; /* seconds of a request */
static const char *const names[] = {"clean", NULL};
static double seconds = 0.2, allowed = 0.3; /* the machine has other things to do */

static uint8_t pixels[PIXELS];
static mbl_image_t images[N];
static const mbl_prompt_t prompt = {"any", NULL}, *asked[N];
static mbl_score_t scores[2][N];
static char options[400];

/* A server whose slowness can be switched on. */
typedef struct {
    oip_server_t oip;
    atomic_bool slow;
} replica_t;

static bool handle(fake_request_t *request, void *user) {
    replica_t *replica = user;
    if (strstr(request->path, "/infer"))
        fake_hang(request, atomic_load(&replica->slow) ? 50 * ANSWER : ANSWER);
    return oip_handle(request, &replica->oip);
}

static void open_replica(replica_t *replica) {
    memset(replica, 0, sizeof *replica);
    replica->oip.rewards = names;
    fake_open(&replica->oip.http, handle, replica);
}

static mbl_scorer_pool_t *open_pool(replica_t *replicas, size_t n) {
    mbl_scorer_pool_t *pool;
    snprintf(options, sizeof options,
             "{\"urls\": [\"%.100s\"%s%.100s%s], \"model\": \"signs\", \"output\": \"clean\", \"batch\": %d, "
             "\"deadline\": 2}",
             replicas[0].oip.http.url, n > 1 ? ", \"" : "", n > 1 ? replicas[1].oip.http.url : "",
             n > 1 ? "\"" : "", BATCH);
    mbl_reward_spec_t spec = {.name = "clean", .type = "remote", .options = options};
    assert_int_equal(mbl_scorer_pool_open(&spec, 1, 1, NULL, &pool), MBL_OK);
    return pool;
}

static void check_valid(const mbl_score_t *said, size_t n) {
    for (size_t i = 0; i < n; i++)
        assert_int_equal(said[i].state, MBL_SCORE_VALID);
}

/* Images a second of n images, all of which have a score. */
static double rate_of(mbl_scorer_pool_t *pool, size_t n) {
    double start = mbl_now();
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, n, scores[0]), MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
    check_valid(scores[0], n);
    return (double)n / (mbl_now() - start);
}

/* The same of several pools at once, which so meet the same business of the machine: images by the time in
 * which each had requests under way. */
static void rates_of(mbl_scorer_pool_t *const pools[2], size_t n, double out[2]) {
    mbl_traffic_t traffic;
    bool served;
    for (int p = 0; p < 2; p++) {
        mbl_scorer_pool_traffic(pools[p], &traffic, &served);
        assert_int_equal(mbl_scorer_pool_submit(pools[p], images, asked, n, scores[p]), MBL_OK);
    }
    for (int p = 0; p < 2; p++) {
        assert_int_equal(mbl_scorer_pool_wait(pools[p]), MBL_OK);
        mbl_scorer_pool_traffic(pools[p], &traffic, &served);
        check_valid(scores[p], n);
        out[p] = traffic.images / traffic.seconds;
    }
}

static size_t set_aside(mbl_scorer_pool_t *pool) {
    mbl_traffic_t traffic;
    bool served;
    mbl_scorer_pool_traffic(pool, &traffic, &served);
    return (size_t)traffic.set_aside;
}

static double middle_of(const double values[ROUNDS]) {
    for (int i = 0; i < ROUNDS; i++) {
        int below = 0;
        for (int j = 0; j < ROUNDS; j++)
            below += values[j] < values[i] || (values[j] == values[i] && j < i);
        if (below == ROUNDS / 2)
            return values[i];
    }
    return NAN;
}

static void one_of_two(const char *what, void (*spoil)(replica_t *)) {
    replica_t replicas[2], single;
    double expected = 2 * BATCH / ANSWER; /* in_flight is 2 */
    for (int i = 0; i < 2; i++)
        open_replica(&replicas[i]);
    open_replica(&single);
    mbl_scorer_pool_t *two = open_pool(replicas, 2), *alone = open_pool(&single, 1);
    double both = rate_of(two, 80);
    spoil(&replicas[1]);
    double start = mbl_now();
    size_t during = 0;
    for (; set_aside(two) == 0 && during < 2000; during += 40)
        (void)rate_of(two, 40);
    double until = mbl_now() - start;
    assert_int_equal(set_aside(two), 1);
    mbl_scorer_pool_t *const pools[2] = {two, alone};
    double rates[ROUNDS][2], lost[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        rates_of(pools, (size_t)fmin(N, expected * seconds) / BATCH * BATCH, rates[round]);
        lost[round] = 1 - rates[round][0] / rates[round][1];
    }
    double middle = middle_of(lost);
    print_message(
        "%-20s two good ones %.0f images/s; set aside after %.2f s and %zu images; then %.1f images/s, one "
        "alone %.1f; %.1f %% lost (middle of %d), and no score\n",
        what, both, until, during, rates[ROUNDS - 1][0], rates[ROUNDS - 1][1], 100 * middle, ROUNDS);
    assert_true(middle < allowed);
    mbl_scorer_pool_close(two);
    mbl_scorer_pool_close(alone);
    for (int i = 0; i < 2; i++)
        fake_close(&replicas[i].oip.http);
    fake_close(&single.oip.http);
}

static void get_killed(replica_t *replica) {
    fake_close(&replica->oip.http);
}
static void hang(replica_t *replica) {
    atomic_store(&replica->oip.fault, OIP_HANG);
}
static void get_slow(replica_t *replica) {
    atomic_store(&replica->slow, true);
}
static void answer_garbage(replica_t *replica) {
    atomic_store(&replica->oip.fault, OIP_GARBAGE);
}

static void test_killed(void **state) {
    (void)state;
    one_of_two("one of two killed", get_killed);
}
static void test_hanging(void **state) {
    (void)state;
    one_of_two("one of two hangs", hang);
}
static void test_slow(void **state) {
    (void)state;
    one_of_two("50 times as slow", get_slow);
}
static void test_garbage(void **state) {
    (void)state;
    one_of_two("answers garbage", answer_garbage);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed), cmocka_unit_test(test_hanging),
                                       cmocka_unit_test(test_slow), cmocka_unit_test(test_garbage)};
    if (argc > 1) {
        seconds = strtod(argv[1], NULL);
        allowed = 0.05;
    }
    for (size_t i = 0; i < N; i++) {
        images[i] = (mbl_image_t){SIDE, SIDE, pixels};
        asked[i] = &prompt;
    }
    memset(pixels, 200, sizeof pixels);
    mbl_log_set_level(MBL_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
