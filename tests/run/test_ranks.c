/* src/run/ranks: every rank's time and memory stand at its place on all of them. ctest-ranks: 3 */
#include "ranks.h"
#include "run/ranks.h"

#include <math.h>

static void side_by_side(void **state) {
    mbl_comm_t *comm = *state;
    mbl_ranks_t ranks = {.n = 0};
    mbl_step_seconds_t own = {.rollout = 1 + comm->rank,
                              .reward_wait = 0.25,
                              .train = 10 + comm->rank,
                              .gram = 0.5,
                              .qp = 0.125,
                              .comm = 3 * comm->rank};
    assert_int_equal(mbl_ranks_new(comm, &ranks), MBL_OK);
    assert_int_equal(mbl_ranks_measure(comm, &own, &ranks), MBL_OK);
    assert_int_equal(ranks.n, comm->size);
    for (int i = 0; i < comm->size; i++) {
        assert_true(ranks.of[i].rollout == 1.25 + i);
        assert_true(ranks.of[i].train == 10.625 + i);
        assert_true(ranks.of[i].comm == 3.0 * i);
        assert_in_range((size_t)ranks.of[i].memory, 1 << 20, (size_t)1 << 40);
    }
    json_t *line = json_object();
    mbl_ranks_put(&ranks, line);
    const json_t *found = json_object_get(line, "ranks");
    const char *lists[] = {"rollout", "train", "comm", "memory"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        assert_int_equal(json_array_size(json_object_get(found, lists[i])), comm->size);
    assert_true(json_real_value(json_array_get(json_object_get(found, "train"), (size_t)comm->size - 1)) ==
                9.625 + comm->size);
    json_decref(line);
    mbl_ranks_free(&ranks);
    assert_null(ranks.of);
}

int main(void) {
    mbl_comm_t *comm = open_ranks();
    if (!comm)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(side_by_side, comm)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
