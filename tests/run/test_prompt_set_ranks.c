/* src/run/prompt_set.c: prompt files that ranks share. */
#include "small_run.h"

static void a_pipe_is_for_one_rank(void **state) {
    char path[512];
    (void)state;
    snprintf(path, sizeof path, "mkfifo %s/pipe.txt", folder);
    assert_int_equal(system(path), 0);
    assert_int_equal(train(2, "pipe", prompts_of("pipe.txt")), 2);
    check_times("pipe.log", "prompts.train: a pipe, which one rank alone can read, while there are 2", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_is_for_one_rank),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
