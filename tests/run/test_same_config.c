/* src/run/same_config.c: one configuration on every rank.
 *
 * ctest-ranks: 1 2 3 */
#include "ranks.h"
#include "base/log.h"
#include "run/same_config.h"

#include <string.h>

static mbl_comm_t *comm;

static const char text[] = "seed: 42\n"
                           "train: {steps: 2, lr: 5.0e-4}\n"
                           "rewards: [{name: ocr}, {name: far, type: clean, weight: 2}]\n";

/* Of ranks of which the last has `set` besides; what every rank gets. */
static mbl_status_t compared(const char *set) {
    mbl_config_t *config;
    bool last = comm->rank == comm->size - 1;
    assert_int_equal(mbl_config_parse(text, sizeof text - 1, "run.yaml", &set, last ? 1 : 0, &config),
                     MBL_OK);
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_same_config(comm, config, "run.yaml");
    mbl_fail_quiet(0);
    mbl_config_free(config);
    return status;
}

static void another_value_on_one_rank_is_refused(void **state) {
    static const char *const sets[] = {"seed=43",
                                       "train.lr=5e-3",
                                       "prompts.group_size=4",
                                       "rewards.1.weight=3",
                                       "rewards=[{name: ocr}]",
                                       "checkpoint.every=7"};
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_int_equal(compared(sets[i]), comm->size > 1 ? MBL_ERR_CONFIG : MBL_OK);
    assert_int_equal(compared("train.lr=5e-3"), comm->size > 1 ? MBL_ERR_CONFIG : MBL_OK);
    if (comm->size > 1 && comm->rank == comm->size - 1)
        assert_non_null(strstr(mbl_fail_message(), "run.yaml: train.lr is 0.005 on rank "));
    if (comm->size > 1 && comm->rank == comm->size - 1)
        assert_non_null(strstr(mbl_fail_message(), " and 0.0005 on rank 0; expected one configuration"));
}

/* Where it computes, and where its files lie, is a rank's own. */
static void what_belongs_to_a_node_may_differ(void **state) {
    static const char *const sets[] = {"seed=42",        "threads=3",          "device=cpu",
                                       "log.level=warn", "limits.deadline=99", "model.path=/tmp"};
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_int_equal(compared(sets[i]), MBL_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_value_on_one_rank_is_refused),
        cmocka_unit_test(what_belongs_to_a_node_may_differ),
    };
    return RUN_ON_RANKS(&comm, tests);
}
