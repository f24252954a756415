/* src/reward/remote/schedule on simulated replicas and a simulated clock: nothing is lost, limits hold, bad
 * replicas are left alone and come back, and the same seed gives the same run. */
#include "schedule_case.h"

static void test_equal_replicas_share_the_work(void **state) {
    (void)state;
    const replica_t replicas[] = {fine, fine, fine, fine};
    mbl_schedule_options_t options = usual;
    options.replicas = 4;
    double seconds = run(&sim, &options, replicas, 800, 64);
    assert_int_equal(sim.good, 800);
    assert_int_equal(sim.answers, 800);
    for (size_t r = 0; r < 4; r++)
        assert_true(sim.by[r] > 190 && sim.by[r] < 210);
    assert_near(seconds, 800 * 0.103 / 16, 0.3); /* every replica always had in_flight of them */
    assert_int_equal(sim.quarantines, 0);
    assert_int_equal(sim.started, 800); /* nothing was asked twice */
}

/* One of two goes bad after five seconds: every task has its answer, and the rate is soon that of the one
 * that is left. */
static void test_one_of_two_goes_bad(void **state) {
    (void)state;
    const struct {
        const char *name;
        replica_t bad;
    } cases[] = {{"dies", dies},
                 {"hangs", becomes_hanging},
                 {"slow", becomes_slow},
                 {"garbage", becomes_garbage},
                 {"dead from the start", dead},
                 {"refuses from the start", refuses}};
    const replica_t one[] = {fine};
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    double alone = run(&sim, &options, one, 2000, 16) / 2000;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const replica_t two[] = {fine, cases[i].bad};
        double seconds = run(&sim, &usual, two, 2000, 16);
        double before = i < 4 ? 2 * 5 / alone : 0; /* answers of the good seconds */
        double after = (seconds - (i < 4 ? 5 : 0)) / (2000 - before);
        print_message("%-24s %4zu asked of the bad one, %3zu quarantines, rate lost %.2f %%\n", cases[i].name,
                      sim.by[1], sim.quarantines, 100 * (after / alone - 1));
        assert_int_equal(sim.good, 2000);
        assert_int_equal(sim.quarantines, 1);
        assert_int_equal(sim.restores, 0);
        assert_true(after / alone < 1.05);
    }
}

/* One that says nothing at all while a request has its whole time is set aside in the first step that meets
 * it, whether the other one's answer to a second request or the deadline ends that time. */
static void test_a_silent_one_costs_one_step(void **state) {
    (void)state;
    const struct {
        const char *name;
        replica_t bad;
    } cases[] = {{"hangs", becomes_hanging}, {"slow", becomes_slow}};
    for (size_t i = 0; i < 4; i++) {
        const replica_t two[] = {fine, cases[i % 2].bad};
        mbl_schedule_options_t options = usual;
        options.in_flight = 2;
        options.deadline = 2;
        options.hedge = i < 2 ? 4 : 0;
        open_sim(&sim, &options, two);
        for (int step = 0; step < 4; step++)
            do_tasks(&sim, 4, 4);
        idle(&sim, 6);
        size_t before = sim.by[1];
        double start = sim.now, most = (i < 2 ? 0.4 : options.deadline) + 1.5;
        do_tasks(&sim, 4, 4);
        print_message("%s, hedge %g: a step of %.2f s, %zu asked of it, %zu set aside\n", cases[i % 2].name,
                      options.hedge, sim.now - start, sim.by[1] - before, sim.quarantines);
        assert_int_equal(sim.good, 4);
        assert_int_equal(sim.quarantines, 1);
        assert_true(sim.by[1] - before <= options.in_flight);
        assert_true(sim.now - start < most);
        mbl_schedule_close(sim.schedule);
    }
}

static void test_a_replica_comes_back(void **state) {
    (void)state;
    const replica_t two[] = {fine, comes_back};
    run(&sim, &usual, two, 6000, 16);
    assert_int_equal(sim.good, 6000);
    assert_int_equal(sim.quarantines, 1);
    assert_int_equal(sim.restores, 1);
    assert_true(sim.by[1] > 1500); /* it works again */
}

static void test_all_dead(void **state) {
    (void)state;
    const replica_t two[] = {dead, dead};
    double seconds = run(&sim, &usual, two, 40, 40);
    assert_int_equal(sim.bad, 40);
    assert_int_equal(sim.started, 0);           /* they never said what they are */
    assert_true(seconds <= usual.deadline + 1); /* nobody was ever there */
    const replica_t late[] = {dies};
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    seconds = run(&sim, &options, late, 400, 8); /* some were done before */
    assert_true(sim.good > 150 && sim.good < 250);
    assert_int_equal(sim.good + sim.bad, 400);
    assert_true(seconds <
                5 + 2 * usual.deadline); /* all that are left fail together, not one after the other */
    assert_true(sim.probed > 3 && sim.probed < 30); /* it is asked now and then, not always */
    const replica_t refuse[] = {refuses, refuses};
    seconds = run(&sim, &usual, refuse, 6, 6);
    assert_int_equal(sim.bad, 6);
    assert_true(seconds < 60);
}

/* A queue that moves is no failure, however long a task waits in it for its turn; one that does not move
 * ends. */
static void test_a_long_queue(void **state) {
    (void)state;
    const replica_t one[] = {fine}, stuck[] = {becomes_hanging};
    mbl_schedule_options_t options = usual;
    options.replicas = options.in_flight = 1;
    options.retries = 1;
    options.deadline = 2;
    double seconds = run(&sim, &options, one, 300, 300);
    assert_int_equal(sim.good, 300);
    assert_true(seconds > 25); /* far more than a task has from its first attempt on */
    seconds = run(&sim, &options, stuck, 300, 300);
    assert_int_equal(sim.good + sim.bad, 300);
    assert_true(sim.good > 40 && sim.good < 60);
    assert_true(seconds < 5 + 4 * (2 * options.deadline)); /* together, not one after the other */
    const replica_t busy[] = {always_busy};
    seconds = run(&sim, &options, busy, 40, 40);
    assert_int_equal(sim.bad, 40);
    assert_true(seconds < 4 * (2 * options.deadline));
}

static void test_busy_servers_are_left_alone_as_long_as_they_ask(void **state) {
    (void)state;
    const replica_t one[] = {busy_at_first};
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    run(&sim, &options, one, 20, 20);
    assert_int_equal(sim.good, 20);
    assert_int_equal(sim.quarantines, 0);
    assert_true(sim.started <= 20 + 2 * usual.in_flight); /* the first ones, and again after 3 seconds */
    const replica_t two[] = {busy_at_first, fine};
    run(&sim, &usual, two, 50, 20);
    assert_int_equal(sim.good, 50);
}

static void test_failures_here_and_there_are_tried_again(void **state) {
    (void)state;
    const replica_t two[] = {fine, odd_ones_fail};
    run(&sim, &usual, two, 1000, 16);
    assert_int_equal(sim.good, 1000);
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    options.retries = 0;
    run(&sim, &options, &two[1], 1000, 1);
    assert_true(sim.bad > 300); /* without retries they are lost */
}

/* A request that every replica refuses is at fault itself: it fails at once, and nobody is set aside for it.
 */
static behaviour_t refuses_some(double now, size_t i) {
    return i % 3 ? fine(now, i) : refuses(now, i);
}
static void test_bad_requests_set_nobody_aside(void **state) {
    (void)state;
    const replica_t one[] = {refuses_some};
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    double seconds = run(&sim, &options, one, 600, 8);
    assert_int_equal(sim.bad, 200);
    assert_int_equal(sim.good, 400);
    assert_int_equal(sim.quarantines, 0);
    assert_true(seconds < 600 * 0.11 / 4 + 1);
    const replica_t all[] = {refuses, refuses, refuses};
    options.replicas = 3;
    seconds = run(&sim, &options, all, 30, 30);
    assert_int_equal(sim.bad, 30);
    assert_int_equal(sim.started, 90); /* each asked each once */
    assert_true(seconds < 5);
}

static void test_hedges_are_few(void **state) {
    (void)state;
    const replica_t one[] = {fine}, two[] = {fine, becomes_slow};
    mbl_schedule_options_t options = usual;
    run(&sim, &options, two, 2000, 16);
    mbl_schedule_options_t single = usual;
    single.replicas = 1;
    assert_true(sim.started < 2000 * 11 / 10 + 8);
    options.hedge = 0;
    run(&sim, &options, two, 2000, 16);
    assert_int_equal(sim.good, 2000);
    assert_int_equal(sim.started, 2000);
    run(&sim, &single, one, 500, 16);
    assert_int_equal(sim.started, 500); /* nowhere else to send it */
}

/* Whatever replicas do, in every setting: each task ends once, limits hold (act checks), and the same seed
 * gives the same actions at the same times. */
static void test_wild_replicas(void **state) {
    (void)state;
    const replica_t replicas[] = {wild, wild, fine, hangs, wild};
    for (uint64_t seed = 0; seed < 60; seed++) {
        mbl_schedule_options_t options = {.replicas = 1 + seed % 5,
                                          .in_flight = 1 + seed % 3,
                                          .retries = seed % 4,
                                          .deadline = 2,
                                          .hedge = (double)(seed % 3) * 2,
                                          .optional = seed % 2,
                                          .seed = seed};
        run(&sim, &options, replicas, 150, 1 + seed % 40);
        size_t good = sim.good, bad = sim.bad;
        uint64_t trace = sim.trace;
        assert_int_equal(good + bad, 150);
        assert_int_equal(sim.answers, good);
        run(&sim, &options, replicas, 150, 1 + seed % 40);
        assert_int_equal(sim.good, good);
        assert_true(sim.trace == trace);
    }
}

/* ---- what ranks agree on ---- */

/* Starts what may start and answers probes well; the number of attempts at each replica, and of probes, goes
 * to tasks [2] and probes [2]. Attempts at `bad` fail, others are good. */
static void drive(mbl_schedule_t *schedule, double now, size_t bad, size_t tasks[2], size_t probes[2]) {
    mbl_schedule_action_t action;
    memset(tasks, 0, 2 * sizeof *tasks);
    memset(probes, 0, 2 * sizeof *probes);
    while ((action = mbl_schedule_next(schedule, now)).kind != MBL_SCHEDULE_WAIT) {
        if (action.kind == MBL_SCHEDULE_PROBE) {
            probes[action.replica]++;
            mbl_schedule_probed(schedule, now, action.replica, true);
        } else if (action.kind == MBL_SCHEDULE_START) {
            tasks[action.replica]++;
            (void)mbl_schedule_report(schedule, now, action.attempt,
                                      action.replica == bad ? MBL_SCHEDULE_FAILED : MBL_SCHEDULE_GOOD, 0);
        }
    }
}

static void add_tasks(mbl_schedule_t *schedule, double now, size_t n) {
    for (size_t i = 0, task; i < n; i++)
        assert_int_equal(mbl_schedule_add(schedule, now, &task), MBL_OK);
}

static void test_what_another_rank_decides(void **state) {
    (void)state;
    enum { NONE = 9 };
    mbl_schedule_t *s;
    size_t tasks[2], probes[2];
    assert_int_equal(mbl_schedule_open(&usual, &s), MBL_OK);
    add_tasks(s, 0, 20);
    drive(s, 0, NONE, tasks, probes);
    assert_true(probes[0] == 1 && probes[1] == 1 && tasks[0] > 0 && tasks[1] > 0);
    /* set aside by another: no task, no probe, no vote, however long it takes */
    mbl_schedule_decide(s, 1, 1, true, false);
    for (double now = 1; now < 1e5; now *= 10) {
        add_tasks(s, now, 20);
        drive(s, now, NONE, tasks, probes);
        assert_true(tasks[0] == 20 && tasks[1] == 0 && probes[1] == 0);
        assert_false(mbl_schedule_votes_against(s, 1));
        mbl_schedule_decide(s, now, 1, true, false);
    }
    /* restored by another: asked at once, and used */
    mbl_schedule_decide(s, 1e5, 1, false, false);
    add_tasks(s, 1e5, 20);
    drive(s, 1e5, NONE, tasks, probes);
    assert_true(tasks[1] > 0 && probes[1] == 1);
    /* what this one sees itself counts, until another says that it is good */
    add_tasks(s, 2e5, 20);
    drive(s, 2e5, 1, tasks, probes);
    assert_true(mbl_schedule_votes_against(s, 1) && !mbl_schedule_votes_against(s, 0));
    mbl_schedule_decide(s, 2e5, 1, false, false);
    assert_false(mbl_schedule_votes_against(s, 1));
    drive(s, 2e5, NONE, tasks, probes);
    assert_int_equal(probes[1], 1);
    /* where there is no other, one that was set aside is asked nevertheless */
    mbl_schedule_decide(s, 3e5, 1, true, false);
    mbl_schedule_decide(s, 3e5, 0, true, false);
    add_tasks(s, 3e5, 4);
    drive(s, 3e5 + 1, NONE, tasks, probes);
    assert_int_equal(tasks[0] + tasks[1], 4);
    mbl_schedule_close(s);
}

static void test_the_rank_that_decides_goes_on_asking(void **state) {
    (void)state;
    enum { NONE = 9 };
    mbl_schedule_t *s;
    size_t tasks[2], probes[2];
    assert_int_equal(mbl_schedule_open(&usual, &s), MBL_OK);
    add_tasks(s, 0, 20);
    drive(s, 0, NONE, tasks, probes);
    mbl_schedule_decide(s, 1, 1, true, true);
    assert_true(mbl_schedule_votes_against(s, 1));
    add_tasks(s, 1, 20);
    drive(s, 1, NONE, tasks, probes);
    assert_true(tasks[1] == 0 && probes[1] == 0);
    add_tasks(s, 20, 20);
    drive(s, 20, NONE, tasks, probes);
    assert_true(tasks[1] > 0 && probes[1] == 1);
    assert_false(mbl_schedule_votes_against(s, 1));
    mbl_schedule_close(s);
}

static void test_bad_options(void **state) {
    (void)state;
    mbl_schedule_t *schedule = NULL;
    mbl_schedule_options_t options = usual;
    options.replicas = 0;
    assert_int_equal(mbl_schedule_open(&options, &schedule), MBL_ERR_ARG);
    options = usual;
    options.in_flight = MBL_SCHEDULE_IN_FLIGHT_MAX + 1;
    assert_int_equal(mbl_schedule_open(&options, &schedule), MBL_ERR_ARG);
    assert_null(schedule);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_replicas_share_the_work),
        cmocka_unit_test(test_one_of_two_goes_bad),
        cmocka_unit_test(test_a_silent_one_costs_one_step),
        cmocka_unit_test(test_a_replica_comes_back),
        cmocka_unit_test(test_all_dead),
        cmocka_unit_test(test_a_long_queue),
        cmocka_unit_test(test_busy_servers_are_left_alone_as_long_as_they_ask),
        cmocka_unit_test(test_failures_here_and_there_are_tried_again),
        cmocka_unit_test(test_bad_requests_set_nobody_aside),
        cmocka_unit_test(test_hedges_are_few),
        cmocka_unit_test(test_wild_replicas),
        cmocka_unit_test(test_what_another_rank_decides),
        cmocka_unit_test(test_the_rank_that_decides_goes_on_asking),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
