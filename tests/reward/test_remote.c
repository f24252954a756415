/* Rewards of type remote: the same scores as in this process, from several replicas, in shared calls, through
 * every fault of a replica, with bad options and bad servers refused by name. */
#include "oip_server.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/signs/signs.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = MBL_SIGNS_SIZE, PIXELS = 3 * SIZE * SIZE, N = 96, K = 5 };
static const char *const names[] = {"ocr", "count", "color", "clean", "jpeg", NULL};

/* ---- images of the signs fixture and their true scores ---- */

static uint8_t pixels[N][PIXELS];
static mbl_image_t images[N];
static mbl_prompts_t prompts;
static const mbl_prompt_t *asked[N];
static mbl_score_t expected[N * K];

static int make_images(void **state) {
    (void)state;
    mbl_scorer_pool_t *pool;
    mbl_reward_spec_t specs[K];
    assert_int_equal(mbl_prompts_load("signs", NULL, 3, 0, N, &prompts), MBL_OK);
    for (size_t i = 0; i < N; i++) {
        mbl_signs_scene_t scene;
        mbl_rng_t rng = mbl_rng(11, MBL_RNG_WORLD, 0, i);
        assert_true(mbl_signs_parse(prompts.items[i % 7 ? i : (i + 1) % N].text, &scene));
        mbl_signs_draw(&scene, &rng, pixels[i]);
        images[i] = (mbl_image_t){SIZE, SIZE, pixels[i]};
        asked[i] = &prompts.items[i];
    }
    for (size_t k = 0; k < K; k++)
        specs[k] = (mbl_reward_spec_t){.name = names[k], .type = names[k]};
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, expected), MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
    mbl_scorer_pool_close(pool);
    mbl_log_set_level(MBL_LOG_ERROR);
    return 0;
}

static int free_images(void **state) {
    (void)state;
    mbl_prompts_free(&prompts);
    return 0;
}

/* ---- rewards ---- */

static char options[K][1024];
static mbl_reward_spec_t specs[K];

/* `more`: further keys in JSON, each after a comma. */
static void make_specs(const char *urls, const char *more) {
    for (size_t k = 0; k < K; k++) {
        snprintf(options[k], sizeof options[k],
                 "{\"urls\": [%s], \"model\": \"signs\", \"output\": \"%s\"%s}", urls, names[k], more);
        specs[k] = (mbl_reward_spec_t){.name = names[k], .type = "remote", .options = options[k]};
    }
}

static void score(mbl_scorer_pool_t *pool, size_t step, mbl_score_t *scores) {
    memset(scores, 255, N * K * sizeof *scores);
    for (size_t i = 0; i < N; i += step)
        assert_int_equal(
            mbl_scorer_pool_submit(pool, images + i, asked + i, i + step < N ? step : N - i, scores + i * K),
            MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
}

static void assert_scores(const mbl_score_t *scores) {
    for (size_t i = 0; i < N * K; i++) {
        if (scores[i].state != expected[i].state)
            fail_msg("%s of '%s': state %d, expected %d", names[i % K], asked[i / K]->text,
                     (int)scores[i].state, (int)expected[i].state);
        assert_near(scores[i].value, expected[i].value, 1e-6 * fmax(1, fabs(expected[i].value)));
    }
}

static const char *urls_of(oip_server_t *servers, size_t n, char out[300]) {
    if (n == 1)
        snprintf(out, 300, "\"%.120s\"", servers[0].http.url);
    else
        snprintf(out, 300, "\"%.120s\", \"%.120s\"", servers[0].http.url, servers[1].http.url);
    return out;
}

/* ---- tests ---- */

/* Five rewards of one model come from the same calls; binary and JSON servers alike. */
static void test_the_same_scores_as_in_this_process(void **state) {
    (void)state;
    for (int json_only = 0; json_only < 2; json_only++) {
        oip_server_t server;
        char urls[300];
        mbl_scorer_pool_t *pool;
        mbl_score_t scores[N * K];
        mbl_traffic_t traffic[K];
        bool served[K];
        oip_open(&server, names);
        server.json_only = json_only;
        make_specs(urls_of(&server, 1, urls), ", \"batch\": 16, \"in_flight\": 3");
        assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
        score(pool, 40, scores);
        assert_scores(scores);
        assert_int_equal(atomic_load(&server.infers), 3 + 3 + 1); /* of 40, 40 and 16, cut by 16 */
        mbl_scorer_pool_traffic(pool, traffic, served);
        for (size_t k = 0; k < K; k++) {
            assert_true(served[k]);
            assert_near(traffic[k].images, N, 0);
            assert_near(traffic[k].requests, 7, 0);
        }
        assert_true(mbl_traffic_percentile(&traffic[0], 0.5) > 0);
        score(pool, N, scores); /* again: nothing of the first time is left */
        assert_scores(scores);
        mbl_scorer_pool_close(pool);
        fake_close(&server.http);
    }
}

/* One of two replicas is as bad as can be, from the start of the second of three rounds: no score is lost. */
static void test_no_score_is_lost_with_one_good_replica(void **state) {
    (void)state;
    const oip_fault_t faults[] = {OIP_HANG, OIP_GARBAGE, OIP_CUT, OIP_ERROR, OIP_BUSY, OIP_NAN};
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        oip_server_t servers[2];
        char urls[300];
        mbl_scorer_pool_t *pool;
        mbl_score_t scores[N * K];
        for (int i = 0; i < 2; i++)
            oip_open(&servers[i], names);
        make_specs(urls_of(servers, 2, urls), ", \"batch\": 4, \"in_flight\": 2, \"deadline\": 1");
        assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
        for (int round = 0; round < 3; round++) {
            if (round == 1)
                atomic_store(&servers[1].fault, faults[f]);
            score(pool, 32, scores);
            if (faults[f] != OIP_NAN || round == 0)
                assert_scores(scores);
        }
        if (faults[f] == OIP_NAN) { /* a well-formed answer: those images have no score, and no made-up one */
            size_t failed = 0;
            for (size_t i = 0; i < N * K; i++) {
                failed += scores[i].state == MBL_SCORE_FAILED;
                assert_true(scores[i].state != MBL_SCORE_FAILED || expected[i].state == MBL_SCORE_VALID);
                assert_true(scores[i].state == MBL_SCORE_VALID || scores[i].value == 0);
            }
            assert_true(failed > 0);
        }
        mbl_scorer_pool_close(pool);
        for (int i = 0; i < 2; i++)
            fake_close(&servers[i].http);
    }
}

/* A replica that is killed and one that starts late; a reward whose every server is gone fails in bounded
 * time, is N/A to nobody, and on_failure: stop ends the run. */
static void test_killed_servers(void **state) {
    (void)state;
    oip_server_t servers[2];
    char urls[300];
    mbl_scorer_pool_t *pool;
    mbl_score_t scores[N * K];
    for (int i = 0; i < 2; i++)
        oip_open(&servers[i], names);
    make_specs(urls_of(servers, 2, urls), ", \"batch\": 8, \"deadline\": 0.5, \"retries\": 2");
    specs[2].on_failure = MBL_ON_FAILURE_STOP;
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
    fake_close(&servers[0].http);
    score(pool, 32, scores);
    assert_scores(scores);
    fake_close(&servers[1].http);
    double start = mbl_now();
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_ERR_REWARD);
    assert_non_null(strstr(mbl_fail_message(), "reward color failed"));
    assert_true(mbl_now() - start < 4);
    for (size_t i = 0; i < N * K; i++)
        assert_true(scores[i].state == MBL_SCORE_FAILED && scores[i].value == 0);
    mbl_traffic_t traffic[K];
    bool served[K];
    mbl_scorer_pool_traffic(pool, traffic, served);
    assert_true(traffic[0].failed[mbl_traffic_of_end(1)] > 0); /* connect */
    assert_near(traffic[0].set_aside, 2, 0);
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK); /* asks nobody */
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_ERR_REWARD);
    char says[200];
    snprintf(says, sizeof says, "no server is of use: %.120s: ", servers[0].http.url);
    assert_non_null(strstr(mbl_fail_message(), says));
    mbl_scorer_pool_close(pool);
}

/* Closing with requests under way neither waits for them nor leaves anything behind. */
static void test_closing_in_the_middle(void **state) {
    (void)state;
    oip_server_t server;
    char urls[300];
    mbl_scorer_pool_t *pool;
    mbl_score_t scores[N * K];
    size_t before = mbl_mem_live();
    oip_open(&server, names);
    make_specs(urls_of(&server, 1, urls), ", \"batch\": 8");
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
    atomic_store(&server.fault, OIP_HANG);
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
    usleep(50000);
    double start = mbl_now();
    mbl_scorer_pool_close(pool);
    assert_true(mbl_now() - start < 2);
    assert_int_equal(mbl_mem_live(), before);
    fake_close(&server.http);
}

/* ---- a stop ---- */

static volatile sig_atomic_t stop;

static void *stop_soon(void *unused) {
    usleep(200000);
    stop = 1;
    return unused;
}

/* A server that hangs is not waited for once a stop was asked for, nor one that is not there yet, by a reward
 * that is trained or one that is a monitor. */
static void test_a_stop_ends_waiting(void **state) {
    (void)state;
    oip_server_t server;
    char urls[300];
    mbl_score_t scores[N * K];
    size_t before = mbl_mem_live();
    oip_open(&server, names);
    urls_of(&server, 1, urls);
    mbl_log_set_level(MBL_LOG_OFF);
    for (int late = 0; late < 2; late++)
        for (int monitor = 0; monitor < 2; monitor++) {
            mbl_scorer_pool_t *pool = NULL;
            pthread_t thread;
            make_specs(late ? urls : "\"http://127.0.0.1:1\"", ", \"batch\": 8, \"start\": 60");
            atomic_store(&server.fault, OIP_FINE);
            for (size_t k = 0; k < K; k++)
                specs[k].use = monitor ? MBL_REWARD_MONITOR : MBL_REWARD_TRAINED;
            specs[0].on_failure = MBL_ON_FAILURE_STOP;
            stop = 0;
            if (late)
                assert_int_equal(mbl_scorer_pool_open(specs, K, 1, &stop, &pool), MBL_OK);
            atomic_store(&server.fault, OIP_HANG);
            assert_int_equal(pthread_create(&thread, NULL, stop_soon, NULL), 0);
            double start = mbl_now();
            if (late) {
                assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
                assert_int_equal(mbl_scorer_pool_wait(pool), MBL_ERR_STOPPED);
                for (size_t i = 0; i < N * K; i++)
                    assert_int_equal(scores[i].state, MBL_SCORE_FAILED);
                assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
                assert_int_equal(mbl_scorer_pool_wait(pool), MBL_ERR_STOPPED);
            } else {
                assert_int_equal(mbl_scorer_pool_open(specs, K, 1, &stop, &pool), MBL_ERR_STOPPED);
            }
            mbl_scorer_pool_close(pool);
            assert_true(mbl_now() - start < 1.5);
            pthread_join(thread, NULL);
            assert_int_equal(mbl_mem_live(), before);
        }
    mbl_log_set_level(MBL_LOG_ERROR);
    fake_close(&server.http);
}

static void test_tokens(void **state) {
    (void)state;
    char folder[256], path[300], more[500], urls[300];
    oip_server_t server;
    mbl_scorer_pool_t *pool = NULL;
    mbl_score_t scores[N * K];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/token", folder);
    write_whole(path, "  s3cret-7\n", 11);
    oip_open(&server, names);
    strcpy(server.token, "s3cret-7");
    mbl_log_set_level(MBL_LOG_OFF);
    make_specs(urls_of(&server, 1, urls), "");
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_ERR_REWARD);
    assert_non_null(strstr(mbl_fail_message(), "expected a token"));
    setenv("MBL_TEST_TOKEN", "wrong-8", 1);
    make_specs(urls, ", \"token_env\": \"MBL_TEST_TOKEN\"");
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_ERR_REWARD);
    assert_null(strstr(mbl_fail_message(), "wrong-8"));
    make_specs(urls, ", \"token_env\": \"MBL_NO_SUCH_VARIABLE\"");
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_ERR_CONFIG);
    setenv("MBL_TEST_TOKEN", "two\nlines", 1);
    make_specs(urls, ", \"token_env\": \"MBL_TEST_TOKEN\"");
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_ERR_CONFIG);
    assert_null(strstr(mbl_fail_message(), "lines"));
    mbl_log_set_level(MBL_LOG_ERROR);
    setenv("MBL_TEST_TOKEN", "s3cret-7", 1);
    snprintf(more, sizeof more, ", \"token_file\": \"%s\"", path);
    const char *const good[] = {", \"token_env\": \"MBL_TEST_TOKEN\"", more};
    for (size_t i = 0; i < 2; i++) {
        make_specs(urls, good[i]);
        assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
        score(pool, N, scores);
        assert_scores(scores);
        mbl_scorer_pool_close(pool);
    }
    /* a token that the server and the file change in the middle of a run */
    make_specs(urls, more);
    for (int open = 0; open < 2; open++) { /* only its owner is to read it */
        char *text, log[400];
        snprintf(log, sizeof log, "%s/log.txt", folder);
        assert_int_equal(chmod(path, open ? 0640 : 0600), 0);
        mbl_log_set_level(MBL_LOG_WARN);
        assert_int_equal(mbl_log_open(log), MBL_OK);
        assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
        mbl_scorer_pool_close(pool);
        assert_int_equal(mbl_log_open(NULL), MBL_OK);
        mbl_log_set_level(MBL_LOG_ERROR);
        assert_int_equal(mbl_file_read(log, 1 << 20, &text, NULL), MBL_OK);
        assert_int_equal(strstr(text, "other users can read it") != NULL, open);
        assert_null(strstr(text, "s3cret-7"));
        mbl_free(text);
        unlink(log);
    }
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
    score(pool, N, scores);
    strcpy(server.token, "n3w-9");
    write_whole(path, "n3w-9", 5);
    score(pool, N, scores);
    assert_scores(scores);
    mbl_scorer_pool_close(pool);
    fake_close(&server.http);
    remove_folder(folder);
}

/* A server that is busy: how long it is waited for is in the log, once; one that asks for longer than a
 * deadline is not waited for, and its reason is that of the scores. */
static void test_busy_servers_are_said_to_be(void **state) {
    (void)state;
    const struct {
        oip_fault_t fault;
        const char *says, *why;
    } cases[] = {
        {OIP_BUSY, "(HTTP 429: full); it asks to come back in 1 s and gets nothing until then", NULL},
        {OIP_HOURS,
         "is set aside and asked again from time to time: HTTP 429: quota; it asks to come back in",
         "HTTP 429: quota; it asks to come back in 3600 s or more, longer than the deadline of 20 s"}};
    char folder[256], log[400], urls[300], *text;
    temporary_folder(folder);
    snprintf(log, sizeof log, "%s/log.txt", folder);
    for (size_t i = 0; i < 2; i++) {
        oip_server_t server;
        mbl_scorer_pool_t *pool;
        mbl_score_t scores[N * K];
        oip_open(&server, names);
        make_specs(urls_of(&server, 1, urls), ", \"batch\": 8, \"deadline\": 20");
        assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
        atomic_store(&server.fault, (int)cases[i].fault);
        mbl_log_set_level(MBL_LOG_WARN);
        assert_int_equal(mbl_log_open(log), MBL_OK);
        double start = mbl_now();
        assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
        if (!cases[i].why) {
            usleep(300000); /* it has been asked meanwhile */
            atomic_store(&server.fault, (int)OIP_FINE);
        }
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        assert_true(mbl_now() - start < 10);
        const char *why = mbl_scorer_pool_failure(pool, 0);
        if (cases[i].why && (!why || !strstr(why, cases[i].why)))
            fail_msg("%s", why ? why : "no failure");
        if (!cases[i].why)
            assert_scores(scores);
        mbl_scorer_pool_close(pool);
        assert_int_equal(mbl_log_open(NULL), MBL_OK);
        mbl_log_set_level(MBL_LOG_ERROR);
        assert_int_equal(mbl_file_read(log, 1 << 20, &text, NULL), MBL_OK);
        const char *at = strstr(text, cases[i].says);
        if (!at || strstr(at + 1, cases[i].says))
            fail_msg("expected \"%s\" once, found %s", cases[i].says, text);
        mbl_free(text);
        fake_close(&server.http);
        unlink(log);
    }
    remove_folder(folder);
}

/* What is wrong is said at once, with the reward and what was expected. */
static void test_refused(void **state) {
    (void)state;
    const struct {
        const char *options, *says;
        mbl_status_t status;
    } cases[] = {
        {"{\"model\": \"signs\"}", "has neither url nor urls", MBL_ERR_CONFIG},
        {"{\"urls\": [\"http://a\", \"http://b\", \"http://a\"], \"model\": \"signs\"}",
         "urls: http://a is there twice", MBL_ERR_CONFIG},
        {"{\"url\": \"http://a\", \"urls\": [\"http://b\"], \"model\": \"m\"}", "has both", MBL_ERR_CONFIG},
        {"{\"url\": \"localhost:80\", \"model\": \"m\"}", "begins with none of http://", MBL_ERR_CONFIG},
        {"{\"url\": \"URL\"}", "model", MBL_ERR_CONFIG},
        {"{\"url\": \"URL\", \"model\": \"m\", \"batch\": 0}", "batch", MBL_ERR_CONFIG},
        {"{\"url\": \"URL\", \"model\": \"m\", \"protocol\": \"grpc\"}", "protocol", MBL_ERR_CONFIG},
        {"{\"url\": \"URL\", \"model\": \"m\", \"hedge\": 0.5}",
         "hedge: 0.5; expected 0 (never) or at least 1", MBL_ERR_CONFIG},
        {"{\"url\": \"URL\", \"model\": \"m\", \"retrys\": 1}", "retrys", MBL_ERR_CONFIG},
        {"{\"url\": \"URL\", \"model\": \"absent\"}", "no such model", MBL_ERR_REWARD},
        {"{\"url\": \"URL\", \"model\": \"signs\", \"output\": \"beauty\"}", "beauty", MBL_ERR_REWARD},
        {"{\"url\": \"http://127.0.0.1:1\", \"model\": \"signs\", \"start\": 0.2}", "127.0.0.1:1",
         MBL_ERR_REWARD}};
    oip_server_t server;
    oip_open(&server, names);
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[500];
        const char *at = strstr(cases[i].options, "URL");
        mbl_scorer_pool_t *pool = NULL;
        mbl_reward_spec_t spec = {.name = "mine", .type = "remote", .options = text};
        size_t before = mbl_mem_live();
        double start = mbl_now();
        if (at)
            snprintf(text, sizeof text, "%.*s%.120s%.200s", (int)(at - cases[i].options), cases[i].options,
                     server.http.url, at + 3);
        else
            snprintf(text, sizeof text, "%s", cases[i].options);
        mbl_status_t status = mbl_scorer_pool_open(&spec, 1, 1, NULL, &pool);
        if (status != cases[i].status || !strstr(mbl_fail_message(), cases[i].says))
            fail_msg("%s: %s (%s), expected %s with '%s'", text, mbl_status_name(status), mbl_fail_message(),
                     mbl_status_name(cases[i].status), cases[i].says);
        assert_int_equal(mbl_mem_live(), before);
        assert_true(mbl_now() - start < 3);
    }
    mbl_log_set_level(MBL_LOG_ERROR);
    fake_close(&server.http);
}

/* Any allocation may fail: opening says so, or scores fail, and nothing is lost. */
static void test_no_memory(void **state) {
    (void)state;
    oip_server_t server;
    char urls[300];
    mbl_score_t scores[N * K];
    size_t opened = 0;
    oip_open(&server, names);
    make_specs(urls_of(&server, 1, urls), ", \"start\": 0.2, \"retries\": 1, \"deadline\": 2");
    size_t before = mbl_mem_live();
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t n = 1; n < 250; n += n < 40 ? 1 : 7) {
        mbl_scorer_pool_t *pool = NULL;
        mbl_mem_fail_at(n);
        mbl_status_t status = mbl_scorer_pool_open(specs, K, 1, NULL, &pool);
        if (status == MBL_OK && mbl_scorer_pool_submit(pool, images, asked, N, scores) == MBL_OK) {
            assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
            opened++;
        }
        mbl_mem_fail_at(0);
        mbl_scorer_pool_close(pool);
        if (mbl_mem_live() != before)
            fail_msg("allocation %zu: %zu blocks, expected %zu", n, mbl_mem_live(), before);
    }
    mbl_log_set_level(MBL_LOG_ERROR);
    assert_true(opened > 3);
    fake_close(&server.http);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_scores_as_in_this_process),
        cmocka_unit_test(test_no_score_is_lost_with_one_good_replica),
        cmocka_unit_test(test_killed_servers),
        cmocka_unit_test(test_closing_in_the_middle),
        cmocka_unit_test(test_a_stop_ends_waiting),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_busy_servers_are_said_to_be),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, make_images, free_images);
}
