/* Tables: aligned and as Markdown, to the character; what is refused. */
#include "support.h"

#include "base/grid.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static char *printed(const mbl_grid_t *grid, bool markdown, mbl_status_t want) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(mbl_grid_print(grid, markdown, out), want);
    assert_int_equal(fclose(out), 0);
    return text;
}

static mbl_grid_t *example(void) {
    mbl_grid_t *grid;
    assert_int_equal(mbl_grid_new(3, 1, &grid), MBL_OK);
    static const char *const cells[] = {"reward", "mean", "", "a|b", "0.5", "better", "größe", "-10.25", ""};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        mbl_grid_cell(grid, "%s", cells[i]);
    return grid;
}

static void both_forms(void **state) {
    (void)state;
    mbl_grid_t *grid = example();
    char *text = printed(grid, false, MBL_OK);
    assert_string_equal(text, "reward    mean        \n"
                              "a|b        0.5  better\n"
                              "größe   -10.25        \n");
    free(text);
    text = printed(grid, true, MBL_OK);
    assert_string_equal(text, "| reward | mean |  |\n"
                              "|---|---:|---:|\n"
                              "| a\\|b | 0.5 | better |\n"
                              "| größe | -10.25 |  |\n");
    free(text);
    mbl_grid_cell(grid, "%d", 1);
    free(printed(grid, false, MBL_ERR_ARG)); /* a row of one cell */
    mbl_grid_free(grid);
}

static void without_memory(void **state) {
    (void)state;
    size_t live = mbl_mem_live();
    for (size_t at = 2;; at++) { /* the first is the table's own */
        size_t before = mbl_mem_count();
        mbl_mem_fail_at(at);
        mbl_grid_t *grid = example();
        bool reached = mbl_mem_count() - before >= at;
        mbl_mem_fail_at(0);
        free(printed(grid, false, reached ? MBL_ERR_MEM : MBL_OK));
        mbl_grid_free(grid);
        assert_int_equal(mbl_mem_live(), live);
        if (!reached)
            break;
        assert_true(at < 30);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_forms), cmocka_unit_test(without_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
