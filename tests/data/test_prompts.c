/* src/data/prompts*: the splits of the signs world, and prompt files good and bad. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/prompts.h"
#include "data/signs/signs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRAIN = 8 * 180 + 64 + 38, TEST = 8 * 45 + 32 + 18 };

static bool holds(const mbl_prompts_t *prompts, size_t count, const char *text) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(prompts->items[i].text, text) == 0)
            return true;
    return false;
}

static void splits_share_nothing(void **state) {
    (void)state;
    mbl_prompts_t train, test;
    size_t live = mbl_mem_live();
    assert_int_equal(mbl_prompts_load("signs", NULL, 42, 0, 0, &train), MBL_OK);
    assert_int_equal(mbl_prompts_load("signs", NULL, 43, 1, 0, &test), MBL_OK);
    assert_int_equal(train.count, TRAIN);
    assert_int_equal(test.count, TEST);
    for (size_t i = 0; i < train.count; i++)
        assert_false(holds(&train, i, train.items[i].text));
    for (size_t i = 0; i < test.count; i++) {
        assert_false(holds(&test, i, test.items[i].text));
        assert_false(holds(&train, train.count, test.items[i].text));
    }
    mbl_prompts_free(&train);
    mbl_prompts_free(&test);
    assert_int_equal(mbl_mem_live(), live);
}

static void both_splits_know_every_colour_glyph_and_shape(void **state) {
    (void)state;
    for (int split = 0; split < 2; split++) {
        mbl_prompts_t prompts;
        int color[8] = {0}, shape[3] = {0}, count[5] = {0}, glyph[2][128] = {{0}};
        assert_int_equal(mbl_prompts_load("signs", NULL, 1, split, 0, &prompts), MBL_OK);
        for (size_t i = 0; i < prompts.count; i++) {
            mbl_signs_scene_t scene;
            assert_true(mbl_signs_parse(prompts.items[i].text, &scene));
            color[scene.color]++;
            if (scene.kind == MBL_SIGNS_COUNT) {
                shape[scene.shape]++;
                count[scene.count]++;
            }
            for (int k = 0; scene.kind == MBL_SIGNS_TEXT && k < 2; k++)
                glyph[k][(int)scene.text[k]]++;
        }
        mbl_prompts_free(&prompts);
        for (int c = 0; c < 8; c++)
            assert_in_range(color[c], 50, 250);
        for (int s = 0; s < 3; s++)
            assert_in_range(shape[s], 10, 22);
        for (int n = 1; n <= 4; n++)
            assert_in_range(count[n], 8, 16);
        for (const char *g = mbl_signs_glyphs(); *g; g++)
            for (int k = 0; k < 2; k++)
                assert_int_equal(glyph[k][(int)*g], split ? 24 : 96);
    }
}

static void order_is_mixed_and_seeded(void **state) {
    (void)state;
    mbl_prompts_t a, b, c;
    assert_int_equal(mbl_prompts_load("signs", NULL, 7, 0, 72, &a), MBL_OK);
    assert_int_equal(mbl_prompts_load("signs", NULL, 7, 0, 120, &b), MBL_OK);
    assert_int_equal(mbl_prompts_load("signs", NULL, 8, 0, 72, &c), MBL_OK);
    assert_int_equal(a.count, 72);
    size_t same = 0;
    int kinds[3] = {0};
    for (size_t i = 0; i < 72; i++) {
        mbl_signs_scene_t scene;
        assert_string_equal(a.items[i].text, b.items[i].text); /* more of the same order */
        assert_null(a.items[i].metadata);
        same += strcmp(a.items[i].text, c.items[i].text) == 0;
        assert_true(mbl_signs_parse(a.items[i].text, &scene));
        kinds[scene.kind]++;
    }
    assert_in_range(same, 0, 8);
    assert_int_equal(kinds[MBL_SIGNS_TEXT], 36);
    assert_int_equal(kinds[MBL_SIGNS_COUNT], 18);
    assert_int_equal(kinds[MBL_SIGNS_HORIZON], 18);
    mbl_prompts_free(&a);
    mbl_prompts_free(&b);
    mbl_prompts_free(&c);
}

/* Loads what a file with this content gives. */
static mbl_status_t load(const char *name, const char *content, size_t size, size_t count,
                         mbl_prompts_t *out) {
    char folder[256], path[512];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_whole(path, content, size);
    mbl_status_t status = mbl_prompts_load("file", path, 0, 0, count, out);
    remove_folder(folder);
    return status;
}

static void plain_files_are_read(void **state) {
    (void)state;
    static const char text[] = "\xEF\xBB\xBF"
                               "a cat\r\n\n  a \"d\xC3\xB6g\" \t\r\na cat\n   \nthe last";
    mbl_prompts_t prompts;
    size_t live = mbl_mem_live();
    assert_int_equal(load("p.txt", text, sizeof text - 1, 0, &prompts), MBL_OK);
    assert_int_equal(prompts.count, 3);
    assert_string_equal(prompts.items[0].text, "a cat");
    assert_string_equal(prompts.items[1].text, "a \"d\xC3\xB6g\"");
    assert_string_equal(prompts.items[2].text, "the last");
    assert_null(prompts.items[0].metadata);
    mbl_prompts_free(&prompts);
    assert_int_equal(load("p.txt", text, sizeof text - 1, 2, &prompts), MBL_OK);
    assert_int_equal(prompts.count, 2);
    mbl_prompts_free(&prompts);
    assert_int_equal(mbl_mem_live(), live);
}

static void objects_keep_their_metadata(void **state) {
    (void)state;
    static const char text[] =
        "{\"tag\": \"counting\", \"include\": [{\"count\": 2}], \"prompt\": \"two cats\"}\n"
        "{\"prompt\": \"a dog\"}\n";
    mbl_prompts_t prompts;
    assert_int_equal(load("p.jsonl", text, sizeof text - 1, 0, &prompts), MBL_OK);
    assert_int_equal(prompts.count, 2);
    assert_string_equal(prompts.items[0].text, "two cats");
    assert_string_equal(prompts.items[0].metadata, "{\"tag\":\"counting\",\"include\":[{\"count\":2}]}");
    assert_string_equal(prompts.items[1].text, "a dog");
    assert_null(prompts.items[1].metadata);
    mbl_prompts_free(&prompts);
}

/* Every refusal says where and what; nothing is left behind. */
static void bad_input_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *content;
        size_t size, count;
        mbl_status_t status;
        const char *says;
    } bad[] = {
        {"p.txt", "", 0, 0, MBL_ERR_FORMAT, "p.txt: no prompts"},
        {"p.txt", "\n \n", 3, 0, MBL_ERR_FORMAT, "p.txt: no prompts"},
        {"p.txt", "good\n\xff\xfe\n", 8, 0, MBL_ERR_FORMAT, "p.txt:2: not UTF-8"},
        {"p.txt", "go\0od\n", 6, 0, MBL_ERR_FORMAT, "p.txt:1: a zero byte"},
        {"p.csv", "one\n", 4, 0, MBL_ERR_CONFIG, "p.csv\"; expected a .txt"},
        {"p.jsonl", "{\"prompt\": \"a\"}\n\n{\"prompt\": \n", 30, 0, MBL_ERR_FORMAT, "p.jsonl:3: not JSON"},
        {"p.jsonl", "{\"text\": \"a\"}\n", 14, 0, MBL_ERR_FORMAT, "p.jsonl:1: no key \"prompt\""},
        {"p.jsonl", "{\"prompt\": 3}\n", 14, 0, MBL_ERR_FORMAT, "p.jsonl:1: \"prompt\" is not a string"},
        {"p.jsonl", "{\"prompt\": \"\"}\n", 15, 0, MBL_ERR_FORMAT, "p.jsonl:1: an empty \"prompt\""},
        {"p.jsonl", "[\"prompt\"]\n", 11, 0, MBL_ERR_FORMAT, "p.jsonl:1: not an object"},
    };
    size_t live = mbl_mem_live();
    mbl_prompts_t prompts = {.count = 77};
    mbl_fail_quiet(1);
    mbl_log_set_level(MBL_LOG_WARN);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(load(bad[i].name, bad[i].content, bad[i].size, bad[i].count, &prompts),
                         bad[i].status);
        if (!strstr(mbl_fail_message(), bad[i].says))
            fail_msg("'%s' does not say '%s'", mbl_fail_message(), bad[i].says);
    }
    assert_int_equal(mbl_prompts_load("file", "nowhere/p.txt", 0, 0, 0, &prompts), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "nowhere/p.txt"));
    assert_int_equal(mbl_prompts_load("file", NULL, 0, 0, 0, &prompts), MBL_ERR_CONFIG);
    assert_int_equal(mbl_prompts_load("web", NULL, 0, 0, 0, &prompts), MBL_ERR_CONFIG);
    assert_int_equal(mbl_prompts_load("signs", NULL, 0, 2, 0, &prompts), MBL_ERR_ARG);
    assert_int_equal(mbl_prompts_load("signs", NULL, 0, 1, TEST + 1, &prompts), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "411 test sentences of the signs example; there are 410"));
    mbl_log_set_level(MBL_LOG_INFO);
    mbl_fail_quiet(0);
    assert_int_equal(prompts.count, 77);
    assert_int_equal(mbl_mem_live(), live);
}

static void loading_survives_want_of_memory(void **state) {
    (void)state;
    char folder[256], path[512];
    const char *text = "{\"prompt\": \"a\", \"x\": 1}\n{\"prompt\": \"b\"}\n";
    size_t live = mbl_mem_live();
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/p.jsonl", folder);
    write_whole(path, text, strlen(text));
    mbl_fail_quiet(1);
    for (int source = 0; source < 2; source++) {
        mbl_status_t status = MBL_ERR_MEM;
        size_t n = 0;
        while (status != MBL_OK) {
            mbl_prompts_t prompts = {.items = NULL};
            mbl_mem_fail_at(++n);
            status = mbl_prompts_load(source ? "file" : "signs", path, 0, 0, source ? 0 : 5, &prompts);
            mbl_mem_fail_at(0);
            if (status != MBL_OK)
                assert_int_equal(status, MBL_ERR_MEM);
            mbl_prompts_free(&prompts);
            assert_int_equal(mbl_mem_live(), live);
        }
        assert_in_range(n, 5, 20); /* each allocation failed once */
    }
    mbl_fail_quiet(0);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_share_nothing),
        cmocka_unit_test(both_splits_know_every_colour_glyph_and_shape),
        cmocka_unit_test(order_is_mixed_and_seeded),
        cmocka_unit_test(plain_files_are_read),
        cmocka_unit_test(objects_keep_their_metadata),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(loading_survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
