/* marble train with rewards from servers: the same run as with the same scorers in its own process, on two
 * ranks, also while one of two replicas fails in the middle of it. */
#include "small_run.h"

#include "oip_server.h"

#include "base/clock.h"
#include "run/rundir.h"

enum { STEPS = 4 };
static const char *const names[] = {"ocr", "count", "color", "clean", "jpeg", NULL};
enum { K = 5 };

/* A seed with which ocr and count vary within groups. */
#define COMMON "--set seed=9 --set train.steps=4 --set prompts.groups=4 --set prompts.group_size=4 "

/* --set rewards=[...] with the first n from `urls`. */
static const char *rewards_from(size_t n, const char *urls, const char *more) {
    static char text[3000];
    size_t used = (size_t)snprintf(text, sizeof text, COMMON "--set 'rewards=[");
    for (size_t k = 0; k < n; k++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%s{name: %s, type: remote, urls: [%s], model: signs, output: %s, batch: 3, "
                                 "deadline: 2 s%s}",
                                 k ? ", " : "", names[k], urls, names[k], more);
    snprintf(text + used, sizeof text - used, "]'");
    return text;
}

static int prepare(void **state) {
    int failed = prepare_small(state);
    train_well(2, "here", COMMON);
    train_well(2, "two", COMMON "--set 'rewards=[{name: ocr}, {name: count}]'");
    return failed;
}

/* The lines without what only a remote run says, which is checked. */
static void compare_runs(const char *remote, size_t failures) {
    json_t *here = lines_of("here", "metrics.jsonl"), *there = lines_of(remote, "metrics.jsonl"), *line;
    size_t i, retried = 0, requests = 0;
    assert_int_equal(json_array_size(here), STEPS);
    json_array_foreach(there, i, line) {
        const json_t *said = json_object_get(json_object_get(line, "remote"), "ocr");
        assert_non_null(said);
        assert_true(json_number_value(json_object_get(said, "p99")) > 0);
        assert_true(json_number_value(json_object_get(said, "images_per_s")) > 0);
        requests += (size_t)json_integer_value(json_object_get(said, "requests"));
        const char *kind;
        json_t *count;
        json_object_foreach(json_object_get(said, "failed"), kind, count) retried +=
            (size_t)json_integer_value(count);
        json_object_del(line, "remote");
    }
    assert_int_equal(requests, STEPS * 2 * 3); /* each rank's 8 images of a step, cut by 3 */
    if (failures > 0 ? retried < failures : retried > 0)
        fail_msg("%zu failures, expected %zu", retried, failures);
    /* Who answered, and after how many tries, changes nothing at all. */
    compare(here, there, 0, "metrics.jsonl");
    json_decref(here);
    json_decref(there);
    same_lines("here", remote, "eval.jsonl", 0, 2);
}

static void the_same_run_as_in_its_own_process(void **state) {
    (void)state;
    oip_server_t servers[2];
    char urls[300];
    for (int i = 0; i < 2; i++)
        oip_open(&servers[i], names);
    snprintf(urls, sizeof urls, "\"%.120s\", \"%.120s\"", servers[0].http.url, servers[1].http.url);
    train_well(2, "there", rewards_from(K, urls, ""));
    compare_runs("there", 0);
    for (int i = 0; i < 2; i++) {
        assert_true(atomic_load(&servers[i].infers) > 4); /* both had work */
        fake_close(&servers[i].http);
    }
}

static void a_replica_fails_in_the_middle(void **state) {
    static const struct {
        const char *name;
        oip_fault_t fault;
        size_t failures; /* at least */
    } cases[] = {{"garbage", OIP_GARBAGE, 1}, {"hang", OIP_HANG, 0}, {"cut", OIP_CUT, 1}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        oip_server_t servers[2];
        char urls[300];
        for (int i = 0; i < 2; i++)
            oip_open(&servers[i], names);
        servers[1].good = 6;
        servers[1].then = cases[c].fault;
        snprintf(urls, sizeof urls, "\"%.120s\", \"%.120s\"", servers[0].http.url, servers[1].http.url);
        train_well(2, cases[c].name, rewards_from(K, urls, ""));
        if (cases[c].failures > 0)
            compare_runs(cases[c].name, cases[c].failures);
        else /* hedged, so that it never comes to a deadline, or after one */
            same_lines("here", cases[c].name, "eval.jsonl", 0, 2);
        assert_true(atomic_load(&servers[1].infers) > servers[1].good);
        for (int i = 0; i < 2; i++)
            fake_close(&servers[i].http);
    }
}

/* A monitor is scored and logged, changes nothing about the training, and does not end a run by failing. */
static void monitors_change_nothing(void **state) {
    (void)state;
    oip_server_t server;
    char more[1200];
    oip_open(&server, names);
    server.good = 2;
    server.then = OIP_ERROR;
    snprintf(
        more, sizeof more,
        COMMON
        "--set alarms.on_alarm=stop --set 'rewards=[{name: ocr}, {name: count}, {name: seen, type: remote, "
        "url: \"%.120s\", model: signs, output: clean, monitor: true, retries: 0, deadline: 1 s}, "
        "{name: jpeg, monitor: true, range: [0, 1]}, {name: gone, type: remote, "
        "url: \"http://127.0.0.1:1\", model: m, monitor: true, start: 0.1 s, deadline: 0.1 s}]'",
        server.http.url);
    train_well(2, "monitors", more);
    fake_close(&server.http);
    json_t *here = lines_of("two", "metrics.jsonl"), *there = lines_of("monitors", "metrics.jsonl");
    for (size_t i = 0; i < STEPS; i++) {
        json_t *line = json_array_get(there, i), *plain = json_array_get(here, i);
        /* the loss is a mean over all rewards; of the cosines only those that are trained count */
        static const char *const keys[] = {"grad_norm", "kl", "cos_min", "cos_part_min", "cos_mean"};
        for (size_t j = 0; j < sizeof keys / sizeof *keys; j++)
            compare(json_object_get(plain, keys[j]), json_object_get(line, keys[j]), 1e-6, keys[j]);
        assert_near(json_number_value(json_object_get(json_object_get(line, "alpha"), "jpeg")), 0, 0);
        assert_true(json_is_number(json_object_get(json_object_get(line, "cos"), "jpeg")));
        assert_true(mbl_rundir_trained(line, "ocr") && !mbl_rundir_trained(line, "jpeg"));
        assert_null(json_object_get(plain, "trained"));
        assert_int_equal(json_integer_value(json_object_get(json_object_get(line, "failed"), "gone")), 16);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(line, "valid"), "jpeg")), 16);
    }
    json_t *last = json_array_get(there, STEPS - 1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(last, "failed"), "seen")), 16);
    json_decref(here);
    json_decref(there);
}

/* A server whose model is exchanged in the middle is found out by the first images, which it scores again. */
static void an_exchanged_model_is_found_out(void **state) {
    (void)state;
    for (int shifts = 0; shifts < 2; shifts++) {
        oip_server_t server;
        char more[700], log[64];
        const char *out = shifts ? "exchanged" : "same";
        oip_open(&server, names);
        if (shifts)
            server.then = OIP_SHIFT;
        server.good = 1 + 2 + 2 + 1; /* calls: the evaluation, two epochs, a recheck */
        snprintf(more, sizeof more,
                 COMMON "--set log.recheck_every=1 --set 'rewards=[{name: ocr}, {name: clean, type: remote, "
                        "url: \"%.120s\", model: signs, output: clean}]'",
                 server.http.url);
        train_well(1, out, more);
        fake_close(&server.http);
        json_t *lines = lines_of(out, "metrics.jsonl");
        assert_null(
            json_object_get(json_array_get(lines, 0), "recheck")); /* there was nothing to compare with */
        for (size_t i = 1; i < STEPS; i++) {
            const json_t *said = json_object_get(json_array_get(lines, i), "recheck");
            assert_near(json_number_value(json_object_get(said, "ocr")), 0, 0);
            assert_near(json_number_value(json_object_get(said, "clean")), shifts && i >= 2 ? 0.25 : 0, 1e-6);
        }
        json_decref(lines);
        snprintf(log, sizeof log, "%s.log", out);
        assert_int_equal(times_in(log, "reward clean: images that were scored before") > 0, shifts);
    }
}

/* Nobody there: the run does not begin, and says what it tried. */
static void no_server_no_run(void **state) {
    (void)state;
    assert_int_equal(train(1, "nobody", rewards_from(1, "\"http://127.0.0.1:1\"", ", start: 0.1 s")), 1);
    assert_true(times_in("nobody.log", "error: reward ocr: http://127.0.0.1:1: ") == 1);
    assert_int_equal(train(1, "wrong", rewards_from(1, "\"ftp://127.0.0.1\"", "")), 2);
    assert_int_equal(times_in("wrong.log", "begins with none of http://"), 1);
}

/* A reward whose on_failure is stop ends the run, which keeps what it trained and goes on from there. */
static void a_failure_that_stops_leaves_a_checkpoint(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        char more[900], out[24], log[40];
        snprintf(out, sizeof out, "stops-%d", ranks);
        snprintf(log, sizeof log, "%s.log", out);
        for (int resumed = 0; resumed < 2; resumed++) {
            oip_server_t server;
            oip_open(&server, names);
            if (!resumed) {
                server.good = 4; /* calls: the evaluation, one epoch or two */
                server.then = OIP_ERROR;
            }
            snprintf(more, sizeof more,
                     COMMON
                     "--set checkpoint.every=0 --set 'rewards=[{name: count}, {name: ocr, type: remote, "
                     "url: \"%.120s\", model: signs, output: ocr, retries: 0, deadline: 5 s, "
                     "on_failure: stop}]' %s",
                     server.http.url, resumed ? "--resume auto" : "");
            assert_int_equal(train(ranks, out, more), resumed ? 0 : 1);
            fake_close(&server.http);
            if (!resumed) {
                assert_true(times_in(log, "its on_failure is stop") >=
                            1); /* of every rank that met with it */
                check_times(log, "ended by a reward that failed at step ", 1);
            }
        }
        json_t *lines = lines_of(out, "metrics.jsonl");
        assert_int_equal(json_array_size(lines), STEPS);
        json_decref(lines);
    }
}

/* SIGTERM while a server is waited for, which starts late or hangs in the first evaluation or in a step: the
 * run ends soon, with the exit code of a stop. */
static void a_stop_does_not_wait_for_servers(void **state) {
    static const struct {
        const char *out, *says;
        size_t good; /* calls that are answered; 0: there is no server */
    } cases[] = {{"unstarted", "asked to stop while reward ocr waited for its server http://127.0.0.1:1", 0},
                 {"unevaluated", "stopped at step 0 of 4", 1},
                 {"unscored", "stopped at step 0 of 4", 4}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        oip_server_t server;
        char urls[300] = "\"http://127.0.0.1:1\"", command[5000], log[64];
        oip_open(&server, names);
        server.good = cases[c].good;
        server.then = OIP_HANG;
        if (cases[c].good)
            snprintf(urls, sizeof urls, "\"%.120s\"", server.http.url);
        const char *more = rewards_from(1, urls, ", start: 300 s, retries: 30");
        snprintf(
            command, sizeof command,
            "timeout --preserve-status -s TERM 2 %s/marble train %s/run.yaml --out %s/%s --set device=%s %s "
            ">%s/%s.log 2>&1",
            MBL_BINARY_DIR, folder, folder, cases[c].out, test_backend(), more, folder, cases[c].out);
        double start = mbl_now();
        int code = system(command);
        double seconds = mbl_now() - start;
        fake_close(&server.http);
        snprintf(log, sizeof log, "%s.log", cases[c].out);
        check_times(log, cases[c].says, 1);
        check_times(log, "failed on", 0);
        assert_int_equal(WEXITSTATUS(code), 75);
        if (seconds > 5)
            fail_msg("%s: ended after %g s, expected 2 and a moment", cases[c].out, seconds);
    }
}

/* run.yaml's copy has the variable's name, and nothing anywhere the token. */
static void the_token_stays_where_it_is(void **state) {
    (void)state;
    oip_server_t server;
    char urls[300], command[1024];
    oip_open(&server, names);
    strcpy(server.token, "hush-hush-99");
    snprintf(urls, sizeof urls, "\"%.120s\"", server.http.url);
    setenv("MBL_TEST_TOKEN", "hush-hush-99", 1);
    train_well(1, "token", rewards_from(5, urls, ", token_env: MBL_TEST_TOKEN"));
    fake_close(&server.http);
    assert_int_equal(times_in("token/run.yaml", "token_env: \"MBL_TEST_TOKEN\""), 5);
    snprintf(command, sizeof command, "grep -rq hush-hush-99 '%s/token' '%s/token.log'", folder, folder);
    assert_int_not_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_run_as_in_its_own_process),
        cmocka_unit_test(a_replica_fails_in_the_middle),
        cmocka_unit_test(monitors_change_nothing),
        cmocka_unit_test(an_exchanged_model_is_found_out),
        cmocka_unit_test(no_server_no_run),
        cmocka_unit_test(a_failure_that_stops_leaves_a_checkpoint),
        cmocka_unit_test(a_stop_does_not_wait_for_servers),
        cmocka_unit_test(the_token_stays_where_it_is),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
