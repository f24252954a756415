/* src/reward/remote/schedule where an only replica is bad for a while, step after step, and well again later.
 */
#include "schedule_case.h"

static behaviour_t hangs_a_while(double now, size_t i) {
    return now > 5 && now < 400 ? (behaviour_t){MBL_SCHEDULE_FAILED, 1e4, 0, true} : fine(now, i);
}
static behaviour_t busy_a_while(double now, size_t i) {
    return now > 5 && now < 400 ? always_busy(now, i) : fine(now, i);
}
static behaviour_t fails_a_while(double now, size_t i) {
    return now > 5 && now < 400 ? garbage(now, i) : fine(now, i);
}
static behaviour_t cuts_a_while(double now, size_t i) {
    return now > 5 && now < 400 ? cut(now, i) : fine(now, i);
}
static behaviour_t dead_a_while(double now, size_t i) {
    return now > 5 && now < 400 ? dead(now, i) : fine(now, i);
}

/* Steps of 24 requests and 10 seconds of a monitor's only replica, which is bad for a while, in whatever way:
 * the first bad step has to wait for a deadline at most, those behind it together for little, and once the
 * replica is well all have their scores. */
static void test_a_bad_monitor_holds_up_little(void **state) {
    (void)state;
    const struct {
        const char *name;
        replica_t replica;
    } cases[] = {{"hangs", hangs_a_while},
                 {"busy", busy_a_while},
                 {"errors", fails_a_while},
                 {"cuts", cuts_a_while},
                 {"is gone", dead_a_while}};
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    options.deadline = 60;
    options.optional = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double first = 0, later = 0;
        size_t lost = 0, last = 0;
        open_sim(&sim, &options, &cases[i].replica);
        idle(&sim, 0.5);
        while (sim.now < 1200) {
            double start = sim.now;
            do_tasks(&sim, 24, 24);
            lost += sim.bad;
            last = sim.bad;
            if (sim.bad > 0 && first == 0)
                first = sim.now - start;
            else if (sim.bad > 0)
                later += sim.now - start;
            idle(&sim, sim.now + 10);
        }
        mbl_schedule_close(sim.schedule);
        print_message("%-8s first bad step %5.1f s, all later ones %5.1f s, %zu lost\n", cases[i].name, first,
                      later, lost);
        assert_true(first > 0 && first < options.deadline + 1);
        assert_true(later < 400 * 0.1);
        assert_int_equal(last, 0);
    }
}

/* The same for a reward that is trained: errors of an only replica fail its tasks after their tries, and not
 * all after a deadline; one that is gone for less than a deadline costs nothing. */
static void test_errors_of_an_only_replica(void **state) {
    (void)state;
    const replica_t errors[] = {fails_a_while}, gone[] = {comes_back};
    mbl_schedule_options_t options = usual;
    options.replicas = 1;
    options.deadline = 60;
    open_sim(&sim, &options, errors);
    idle(&sim, 6);
    for (size_t step = 0; step < 5; step++) {
        double start = sim.now;
        do_tasks(&sim, 24, 24);
        assert_int_equal(sim.bad, 24);
        if (sim.now - start > (step ? 1 : 5))
            fail_msg("step %zu took %g s", step, sim.now - start);
        idle(&sim, sim.now + 10);
    }
    idle(&sim, 720); /* the quarantine has grown */
    do_tasks(&sim, 24, 24);
    assert_int_equal(sim.good, 24);
    mbl_schedule_close(sim.schedule);
    run(&sim, &options, gone, 600, 8); /* away from second 5 to 30 */
    assert_int_equal(sim.good, 600);
}

static behaviour_t asks_for_hours(double now, size_t i) {
    return now > 5 && now < 400 ? (behaviour_t){MBL_SCHEDULE_BUSY, 0.01, 7200, true} : fine(now, i);
}

/* A server that asks to come back later than a deadline from now is not waited for, nor asked meanwhile: the
 * tasks of an only one fail at once, and another one takes them over. */
static void test_a_server_that_asks_for_hours(void **state) {
    (void)state;
    const replica_t one[] = {asks_for_hours}, two[] = {fine, asks_for_hours};
    mbl_schedule_options_t options = usual;
    for (int optional = 0; optional < 2; optional++) {
        options.replicas = 1;
        options.deadline = 60;
        options.optional = optional;
        open_sim(&sim, &options, one);
        idle(&sim, 6);
        for (size_t step = 0; step < 5; step++) {
            double start = sim.now;
            do_tasks(&sim, 24, 24);
            assert_int_equal(sim.bad, 24);
            if (sim.now - start > 0.1)
                fail_msg("step %zu took %g s", step, sim.now - start);
            idle(&sim, sim.now + 10);
        }
        assert_true(sim.by[0] <= options.in_flight);
        assert_int_equal(sim.quarantines, 1);
        idle(&sim, 720);
        do_tasks(&sim, 24, 24);
        assert_int_equal(sim.good, 24);
        mbl_schedule_close(sim.schedule);
    }
    options.replicas = 2;
    options.optional = false;
    open_sim(&sim, &options, two);
    idle(&sim, 6);
    do_tasks(&sim, 200, 24);
    assert_int_equal(sim.good, 200);
    assert_int_equal(sim.quarantines, 1);
    assert_true(sim.by[1] <= options.in_flight);
    mbl_schedule_close(sim.schedule);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_server_that_asks_for_hours),
        cmocka_unit_test(test_a_bad_monitor_holds_up_little),
        cmocka_unit_test(test_errors_of_an_only_replica),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
