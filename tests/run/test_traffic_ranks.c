/* src/run/traffic.c: a replica that one rank has set aside is set aside on every rank, once rank 0 has heard
 * of it. ctest-ranks: 2 */
#include "oip_server.h"
#include "ranks.h"

#include "base/clock.h"
#include "base/log.h"
#include "run/traffic.h"

static const char *const names[] = {"clean", NULL};
static mbl_comm_t *comm;

static bool is_ready(mbl_scorer_pool_t *pool, size_t r) {
    const char *url;
    char text[600];
    bool ready;
    assert_true(mbl_scorer_pool_replica(pool, 0, r, &url, &ready, text, sizeof text));
    return ready;
}

static bool is_ready_soon(mbl_scorer_pool_t *pool, size_t r, bool expected) {
    for (double end = mbl_now() + 5; mbl_now() < end && is_ready(pool, r) != expected;)
        usleep(1000);
    return is_ready(pool, r);
}

/* Each rank has servers of its own; the second one of the last rank answers garbage. */
static void ranks_agree(void **state) {
    (void)state;
    enum { N = 40, SIDE = 4 };
    oip_server_t servers[2];
    char options[400];
    uint8_t pixels[SIDE * SIDE * 3] = {0};
    static const mbl_prompt_t prompt = {"any", NULL};
    mbl_image_t images[N];
    const mbl_prompt_t *asked[N];
    mbl_score_t scores[N];
    mbl_scorer_pool_t *pool;
    mbl_run_traffic_t traffic;
    for (size_t i = 0; i < N; i++) {
        images[i] = (mbl_image_t){SIDE, SIDE, pixels};
        asked[i] = &prompt;
    }
    for (int i = 0; i < 2; i++)
        oip_open(&servers[i], names);
    snprintf(
        options, sizeof options,
        "{\"urls\": [\"%.100s\", \"%.100s\"], \"model\": \"signs\", \"output\": \"clean\", \"batch\": 1}",
        servers[0].http.url, servers[1].http.url);
    mbl_reward_spec_t spec = {.name = "clean", .type = "remote", .options = options};
    mbl_log_set_level(MBL_LOG_ERROR);
    assert_int_equal(mbl_scorer_pool_open(&spec, 1, 1, NULL, &pool), MBL_OK);
    for (int step = 0; step < 3; step++) {
        bool last = comm->rank == comm->size - 1;
        if (step == 1 && last)
            atomic_store(&servers[1].fault, OIP_GARBAGE);
        mbl_run_traffic_begin(pool, &traffic);
        assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        for (size_t i = 0; i < N; i++)
            assert_int_equal(scores[i].state, MBL_SCORE_VALID);
        if (step == 1 && last)
            assert_false(is_ready_soon(pool, 1, false));
        assert_int_equal(mbl_run_traffic_end(comm, pool, 1, &traffic), MBL_OK);
        assert_int_equal(is_ready_soon(pool, 1, step == 0), step == 0);
        assert_true(is_ready(pool, 0));
        if (step == 2) /* nobody asked the one that is set aside, wherever it is a good one */
            assert_near(traffic.by[0].set_aside, comm->size, 0);
    }
    mbl_scorer_pool_close(pool);
    for (int i = 0; i < 2; i++)
        fake_close(&servers[i].http);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_agree)};
    return RUN_ON_RANKS(&comm, tests);
}
