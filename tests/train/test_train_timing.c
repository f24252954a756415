/* What metrics.jsonl says of time where an epoch has several optimizer steps: each has its share of the
 * rollout, and images per second are those of the epoch. */
#include "train_case.h"

static double seconds(const json_t *lines, size_t i, const char *phase) {
    return json_number_value(json_object_get(field(lines, i, "seconds"), phase));
}

/* lines_of leaves out what this is about. */
static json_t *whole_lines(const char *out) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, out);
    char *text = read_whole(path, NULL);
    json_t *lines = json_array();
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        json_array_append_new(lines, json_loads(line, 0, NULL));
    free(text);
    return lines;
}

/* Two passes of two updates an epoch, and six steps: an epoch of four and one of two. */
static void steps_share_their_rollout(void **state) {
    (void)state;
    train_well(1, "timing",
               "--set train.inner_epochs=2 --set train.updates_per_epoch=2 --set checkpoint.every=0");
    json_t *lines = whole_lines("timing");
    assert_int_equal(json_array_size(lines), 6);
    for (size_t i = 0; i < 6; i++) {
        size_t first = i < 4 ? 0 : 4;
        double total = seconds(lines, i, "total"), per = first ? IMAGES / 2.0 : IMAGES / 4.0;
        assert_true(seconds(lines, i, "rollout") > 0);
        assert_near(seconds(lines, i, "rollout"), seconds(lines, first, "rollout"), 1e-9);
        assert_near(number_at(lines, i, "samples_per_s"), per / total, 1e-6 * per / total);
        /* the phases follow each other */
        assert_true(seconds(lines, i, "rollout") + seconds(lines, i, "reward_wait") +
                        seconds(lines, i, "train") + seconds(lines, i, "gram") <=
                    1.001 * total);
    }
    json_decref(lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_share_their_rollout),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
