/* src/model/embeds: a prompt's conditions are the same to the bit whichever prompts are encoded with it, and
 * whether they come from memory or from a cache, all of them on the device or few at one time; a record that
 * is damaged is encoded again. ctest-backends: fake cuda */
#include "tiny_pipeline.h"

#include "base/mem.h"
#include "data/prompts.h"
#include "model/embeds.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROMPTS = 9, ROWS = 3 };
static const char group[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

typedef struct {
    tiny_t tiny;
    mbl_encoder_t encoder;
    mbl_prompts_t prompts;
    const char *text[PROMPTS];
    size_t bytes;
    unsigned char *want; /* [PROMPTS, bytes]: encoded one by one */
    char folder[256];
    mbl_prompt_cache_t *cache;
    mbl_prompt_key_t keys[PROMPTS];
} fixture_t;

static mbl_status_t into_want(void *context, size_t i, const void *record) {
    fixture_t *w = context;
    memcpy(w->want + i * w->bytes, record, w->bytes);
    return MBL_OK;
}

static mbl_status_t same_as_want(void *context, size_t i, const void *record) {
    fixture_t *w = context;
    assert_memory_equal(record, w->want + i * w->bytes, w->bytes);
    return MBL_OK;
}

static mbl_status_t into_cache(void *context, size_t i, const void *record) {
    fixture_t *w = context;
    return mbl_prompt_cache_put(w->cache, &w->keys[i], record);
}

static void encode(fixture_t *w, uint32_t first, size_t n,
                   mbl_status_t (*put)(void *context, size_t i, const void *record)) {
    uint32_t which[PROMPTS];
    for (uint32_t i = 0; i < n; i++)
        which[i] = first + i;
    assert_ok(mbl_embeds_encode(&w->encoder, w->text, which, n, &(mbl_embeds_sink_t){put, NULL, w}));
}

static void open_cache(fixture_t *w) {
    const mbl_prompt_cache_options_t options = {w->folder, group, "", w->bytes};
    assert_ok(mbl_prompt_cache_open(&options, &w->cache));
}

static void open_fixture(fixture_t *w, mbl_dtype_t dtype) {
    memset(w, 0, sizeof *w);
    assert_ok(mbl_prompts_load("signs", NULL, 3, 0, PROMPTS, &w->prompts));
    for (size_t i = 0; i < PROMPTS; i++)
        w->text[i] = w->prompts.items[i].text;
    tiny_open(&w->tiny, dtype, 1, 4, MBL_SIGNS_SIZE, 8, 2, w->text, PROMPTS);
    w->encoder = mbl_pipeline_encoder(w->tiny.pipeline);
    temporary_folder(w->folder);
    w->bytes = mbl_embeds_bytes(&w->encoder);
    w->want = mbl_calloc(PROMPTS, w->bytes);
    for (uint32_t i = 0; i < PROMPTS; i++) {
        encode(w, i, 1, into_want);
        assert_ok(mbl_text_key(mbl_pipeline_text(w->tiny.pipeline), w->text[i], w->keys[i].byte));
    }
    open_cache(w);
    encode(w, 0, PROMPTS, into_cache);
    assert_ok(mbl_prompt_cache_flush(w->cache));
}

static void close_fixture(fixture_t *w) {
    mbl_prompt_cache_close(w->cache);
    remove_folder(w->folder);
    mbl_free(w->want);
    tiny_close(&w->tiny);
    mbl_prompts_free(&w->prompts);
}

/* What mbl_conditions_gather makes of some prompts is what they are. */
static void check_gathered(fixture_t *w, const mbl_embeds_t *embeds, const uint32_t *index, size_t n) {
    mbl_conditions_t to;
    mbl_ops_t *ops = w->tiny.ops;
    assert_ok(mbl_pipeline_conditions(w->tiny.pipeline, n, &to));
    assert_ok(mbl_conditions_gather(ops, mbl_embeds_conditions(embeds), index, &to));
    size_t size = mbl_dtype_size(to.context.dtype), wide = to.context.dim[1] * to.context.dim[2] * size,
           narrow = to.pooled.dim[1] * size;
    assert_int_equal(wide + narrow, w->bytes);
    unsigned char *context = malloc(n * wide), *pooled = malloc(n * narrow);
    assert_ok(mbl_tensor_download(ops, &to.context, context));
    assert_ok(mbl_tensor_download(ops, &to.pooled, pooled));
    for (size_t i = 0; i < n; i++) {
        assert_memory_equal(context + i * wide, w->want + index[i] * w->bytes, wide);
        assert_memory_equal(pooled + i * narrow, w->want + index[i] * w->bytes + wide, narrow);
    }
    free(context);
    free(pooled);
    mbl_conditions_free(ops, &to);
}

static const mbl_dtype_t types[] = {MBL_F32, MBL_BF16};

static void company_does_not_matter(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        fixture_t w;
        open_fixture(&w, types[t]);
        encode(&w, 0, PROMPTS, same_as_want);
        encode(&w, 2, 4, same_as_want);
        close_fixture(&w);
    }
}

/* Few rows, many fetches, in both places that prompts are read from. */
static void few_at_one_time(void **state) {
    (void)state;
    static const uint32_t asked[][ROWS] = {{0, 1, 2}, {2, 2, 8}, {8, 3, 2}, {7, 7, 7}, {1, 0, 5}, {5, 0, 1}};
    for (int from_cache = 0; from_cache < 2; from_cache++) {
        fixture_t w;
        mbl_embeds_t *embeds;
        open_fixture(&w, MBL_F32);
        assert_ok(mbl_embeds_new(&w.encoder, w.text, PROMPTS, 0, &embeds));
        if (from_cache)
            mbl_embeds_read_from(embeds, w.cache, w.keys);
        else
            memcpy(mbl_embeds_host(embeds), w.want, PROMPTS * w.bytes);
        assert_ok(mbl_embeds_room(embeds, ROWS));
        for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
            assert_ok(mbl_embeds_fetch(embeds, asked[i], ROWS));
            check_gathered(&w, embeds, asked[i], ROWS);
        }
        const uint32_t many[] = {0, 1, 2, 3}, none = PROMPTS;
        assert_failed(mbl_embeds_fetch(embeds, many, 4), MBL_ERR_ARG, "more prompts at once than the 3");
        assert_int_equal(mbl_embeds_fetch(embeds, &none, 1), MBL_ERR_ARG);
        assert_ok(mbl_embeds_room(embeds, ROWS + 1));
        assert_ok(mbl_embeds_fetch(embeds, many, 4));
        check_gathered(&w, embeds, many, 4);
        mbl_conditions_t to;
        assert_ok(mbl_pipeline_conditions(w.tiny.pipeline, 1, &to));
        assert_failed(mbl_conditions_gather(w.tiny.ops, mbl_embeds_conditions(embeds), &(uint32_t){7}, &to),
                      MBL_ERR_ARG, "prompt 7 is not on the device");
        mbl_conditions_free(w.tiny.ops, &to);
        mbl_embeds_free(embeds);
        close_fixture(&w);
    }
}

/* A small set is on the device whole, and stays when the cache is gone. */
static void small_sets_stay(void **state) {
    fixture_t w;
    mbl_embeds_t *embeds;
    uint32_t all[PROMPTS];
    (void)state;
    open_fixture(&w, MBL_F32);
    for (uint32_t i = 0; i < PROMPTS; i++)
        all[i] = PROMPTS - 1 - i;
    assert_ok(mbl_embeds_new(&w.encoder, w.text, PROMPTS, PROMPTS * w.bytes, &embeds));
    mbl_embeds_read_from(embeds, w.cache, w.keys);
    assert_ok(mbl_embeds_room(embeds, 1));
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'/*", w.folder);
    assert_int_equal(system(command), 0);
    assert_ok(mbl_embeds_fetch(embeds, all, PROMPTS));
    check_gathered(&w, embeds, all, PROMPTS);
    mbl_embeds_free(embeds);
    close_fixture(&w);
}

/* Every file of the cache's folder, with one byte of its first record another. */
static void damage(const fixture_t *w) {
    char path[600];
    snprintf(path, sizeof path, "%s/%.16s", w->folder, group);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        size_t size, at = 0;
        snprintf(path, sizeof path, "%s/%.16s/%.100s", w->folder, group, entry->d_name);
        char *bytes = read_whole(path, &size);
        while (memcmp(bytes + at, w->want, w->bytes) != 0)
            at++;
        bytes[at + w->bytes / 2] = (char)(bytes[at + w->bytes / 2] ^ 1);
        write_whole(path, bytes, size);
        free(bytes);
    }
    closedir(dir);
}

/* The encoders come back for it, and leave again; the cache has it from then on. */
static void damaged_records_are_encoded_again(void **state) {
    fixture_t w;
    mbl_embeds_t *embeds;
    (void)state;
    open_fixture(&w, MBL_F32);
    damage(&w);
    for (int again = 0; again < 2; again++) {
        assert_ok(mbl_embeds_new(&w.encoder, w.text, PROMPTS, 0, &embeds));
        mbl_embeds_read_from(embeds, w.cache, w.keys);
        mbl_pipeline_release_text(w.tiny.pipeline);
        assert_ok(mbl_embeds_room(embeds, 1));
        assert_ok(mbl_embeds_fetch(embeds, &(uint32_t){0}, 1));
        check_gathered(&w, embeds, &(uint32_t){0}, 1);
        mbl_embeds_free(embeds);
        size_t written = mbl_prompt_cache_written(w.cache);
        assert_int_equal(written, again ? 0 : 2);
        mbl_prompt_cache_close(w.cache);
        open_cache(&w);
    }
    close_fixture(&w);
}

/* Texts that tokenize alike are one; others are not. */
static void keys(void **state) {
    fixture_t w;
    unsigned char a[MBL_SHA256_BYTES], b[MBL_SHA256_BYTES];
    (void)state;
    open_fixture(&w, MBL_F32);
    const mbl_text_t *text = mbl_pipeline_text(w.tiny.pipeline);
    assert_ok(mbl_text_key(text, "two  RED squares", a));
    assert_ok(mbl_text_key(text, "two red squares", b));
    assert_memory_equal(a, b, sizeof a);
    assert_ok(mbl_text_key(text, "two red circles", b));
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(mbl_text_key(text, "not \xff UTF-8", a), MBL_ERR_ARG);
    close_fixture(&w);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(company_does_not_matter),
        cmocka_unit_test(few_at_one_time),
        cmocka_unit_test(small_sets_stay),
        cmocka_unit_test(damaged_records_are_encoded_again),
        cmocka_unit_test(keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
