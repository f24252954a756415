/* src/data/prompts_sources.c: sets from several sources, split by the texts. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/prompts.h"

#include <stdio.h>
#include <string.h>

/* `count` prompts NAME 0, NAME 1, ... */
static mbl_prompts_t made(const char *name, size_t count) {
    mbl_prompts_t set = {.items = mbl_calloc(count, sizeof(mbl_prompt_t)), .count = count};
    for (size_t i = 0; i < count; i++)
        set.items[i].text = mbl_format("%s %zu", name, i);
    return set;
}

static bool has(const mbl_prompts_t *set, const char *text) {
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->items[i].text, text) == 0)
            return true;
    return false;
}

/* Every prompt is in one of the two; which one does not depend on what else is in the file; a larger share
 * takes more of the same. */
static void a_split_goes_by_the_text(void **state) {
    enum { COUNT = 1000 };
    (void)state;
    mbl_prompts_t all = made("p", COUNT), train = made("p", COUNT), test = made("p", COUNT),
                  few = made("p", 100), more = made("p", COUNT);
    mbl_prompts_split(&train, 0.2, 0);
    mbl_prompts_split(&test, 0.2, 1);
    mbl_prompts_split(&few, 0.2, 1);
    mbl_prompts_split(&more, 0.4, 1);
    assert_int_equal(train.count + test.count, COUNT);
    assert_in_range(test.count, 150, 250);
    assert_in_range(more.count, 340, 460);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(has(&train, all.items[i].text), !has(&test, all.items[i].text));
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(has(&few, all.items[i].text), has(&test, all.items[i].text));
    for (size_t i = 0; i < test.count; i++)
        assert_true(has(&more, test.items[i].text));
    mbl_prompts_t *sets[] = {&all, &train, &test, &few, &more};
    for (size_t i = 0; i < 5; i++)
        mbl_prompts_free(sets[i]);
}

static mbl_prompts_t joined(size_t first, size_t second, double weight) {
    mbl_prompts_t all = {.items = NULL}, a = made("a", first), b = made("b", second);
    assert_int_equal(mbl_prompts_add(&all, &a, "one", 1), MBL_OK);
    assert_int_equal(mbl_prompts_add(&all, &b, "two", weight), MBL_OK);
    return all;
}

static void sources_stand_one_behind_the_other(void **state) {
    (void)state;
    mbl_prompts_t all = joined(3, 5, 2);
    assert_int_equal(all.count, 8);
    assert_int_equal(all.n_sources, 2);
    assert_string_equal(all.sources[1].name, "two");
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(all.source[i], i >= 3);
        assert_int_equal(all.items[i].text[0], i >= 3 ? 'b' : 'a');
    }
    mbl_prompts_cut(&all, 4);
    assert_int_equal(all.sources[0].count + all.sources[1].count, 4);
    assert_int_equal(all.sources[1].count, 1);
    mbl_prompts_free(&all);
}

/* Any beginning of a mixed set has each source's share to within one. */
static void mixed_sets_begin_with_all(void **state) {
    (void)state;
    mbl_prompts_t all = joined(30, 10, 1);
    assert_int_equal(mbl_prompts_mix(&all), MBL_OK);
    size_t seen[2] = {0};
    for (size_t i = 0; i < 40; i++) {
        char text[32];
        snprintf(text, sizeof text, "%c %zu", all.source[i] ? 'b' : 'a', seen[all.source[i]]++);
        assert_string_equal(all.items[i].text, text); /* in the order of their file */
        assert_near((double)seen[1], (double)(i + 1) / 4, 1);
    }
    mbl_prompts_free(&all);
}

static void digests_know_the_sources(void **state) {
    char digest[5][MBL_SHA256_HEX];
    (void)state;
    mbl_prompts_t sets[5] = {
        joined(3, 5, 2), joined(3, 5, 2), joined(3, 5, 3), joined(3, 5, 2), {.items = NULL}};
    mbl_prompts_t a = made("a", 3), b = made("b", 5);
    assert_int_equal(mbl_prompts_add(&sets[4], &a, "one", 1), MBL_OK);
    assert_int_equal(mbl_prompts_add(&sets[4], &b, "other", 2), MBL_OK);
    assert_int_equal(mbl_prompts_mix(&sets[3]), MBL_OK);
    for (size_t i = 0; i < 5; i++)
        mbl_prompts_digest(&sets[i], digest[i]);
    assert_string_equal(digest[0], digest[1]);
    for (size_t i = 2; i < 5; i++)
        assert_string_not_equal(digest[0], digest[i]);
    for (size_t i = 0; i < 5; i++)
        mbl_prompts_free(&sets[i]);
}

static void failing_memory(void **state) {
    size_t live = mbl_mem_live();
    (void)state;
    mbl_fail_quiet(1);
    for (size_t at = 1; at < 30; at++) {
        mbl_prompts_t all = {.items = NULL}, a = made("a", 2), b = made("b", 2);
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_prompts_add(&all, &a, "one", 1);
        if (status == MBL_OK)
            status = mbl_prompts_add(&all, &b, "two", 1);
        else
            mbl_prompts_free(&b);
        if (status == MBL_OK)
            status = mbl_prompts_mix(&all);
        mbl_mem_fail_at(0);
        assert_int_equal(status, at <= 10 ? MBL_ERR_MEM : MBL_OK); /* 4 + 4 + 2 allocations */
        mbl_prompts_free(&all);
        assert_int_equal(mbl_mem_live(), live);
    }
    mbl_fail_quiet(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_goes_by_the_text),
        cmocka_unit_test(sources_stand_one_behind_the_other),
        cmocka_unit_test(mixed_sets_begin_with_all),
        cmocka_unit_test(digests_know_the_sources),
        cmocka_unit_test(failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
