/* src/model/text/prompt: what diffusers' StableDiffusion3Pipeline makes of prompts
 * (tests/golden/make_prompt.py), with and without T5, with few encoders, folders whose parts do not fit,
 * failing memory. ctest-backends: fake cuda */
#include "ops_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/safetensors.h"
#include "model/text/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MBL_SOURCE_DIR "/tests/golden/prompt"
enum { MOST = 8, CLIP_TOKENS = 20, TOKENS = 48, WIDTH = 40, POOLED = 20, CLIP_WIDTH = 28 };

static json_t *golden;
static const char *prompts[MOST];
static size_t n_prompts;
static mbl_text_options_t options;

static int set_up(void **state) {
    (void)state;
    if (mbl_json_read(GOLDEN "/prompts.json", &golden) != MBL_OK)
        return -1;
    const json_t *all = json_object_get(golden, "prompts");
    n_prompts = json_array_size(all);
    for (size_t i = 0; i < n_prompts && i < MOST; i++)
        prompts[i] = json_string_value(json_array_get(all, i));
    options.max_tokens = (size_t)json_integer_value(json_object_get(golden, "max_tokens"));
    return open_ops_and_folder(getenv("MARBLE_TEST_BACKEND") ? test_backend() : "check", 1);
}

static int tear_down(void **state) {
    json_decref(golden);
    return close_ops_and_folder(state);
}

static double context[MOST * TOKENS * WIDTH], pooled[MOST * POOLED];
static double want_context[MOST * TOKENS * WIDTH], want_pooled[MOST * POOLED];

/* Into context [n,tokens,width] and pooled. */
static mbl_status_t run(const char *path, mbl_dtype_t type, const mbl_text_options_t *how, size_t n,
                        size_t width) {
    mbl_text_t *text = NULL;
    mbl_tensor_t c = {0}, p = {0}, c64 = {0}, p64 = {0};
    mbl_status_t status = mbl_text_open(ops, type, path, how, &text);
    if (status != MBL_OK)
        return status;
    size_t tokens = mbl_text_tokens(text), pd = mbl_text_pooled(text);
    assert_in_range(n * tokens * width, 1, MOST * TOKENS * WIDTH);
    MBL_TRY_GOTO(mbl_tensor_new(ops, type, &c, 3, n, tokens, width), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, type, &p, 2, n, pd), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &c64, 3, n, tokens, width), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &p64, 2, n, pd), done);
    MBL_TRY_GOTO(mbl_text_encode(text, prompts, n, &c, &p), done);
    MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &c64, .src = &c), done);
    MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &p64, .src = &p), done);
    MBL_TRY_GOTO(mbl_tensor_download(ops, &c64, context), done);
    status = mbl_tensor_download(ops, &p64, pooled);
done:
    mbl_tensor_free(ops, &c);
    mbl_tensor_free(ops, &p);
    mbl_tensor_free(ops, &c64);
    mbl_tensor_free(ops, &p64);
    mbl_text_close(text);
    return status;
}

static void read_expected(void) {
    mbl_st_t *st;
    assert_int_equal(mbl_st_open(GOLDEN "/expected.safetensors", &st), MBL_OK);
    assert_int_equal(mbl_st_read_f64(st, "context", want_context, n_prompts * TOKENS * WIDTH), MBL_OK);
    assert_int_equal(mbl_st_read_f64(st, "pooled", want_pooled, n_prompts * POOLED), MBL_OK);
    mbl_st_close(st);
}

static void parity(void **state) {
    (void)state;
    static const struct {
        mbl_dtype_t type;
        double tolerance;
    } types[] = {{MBL_F64, 2e-6}, {MBL_F32, 1e-5}, {MBL_BF16, 0.1}};
    read_expected();
    for (int i = 0; i < 3; i++)
        for (int low_memory = 0; low_memory < 2; low_memory++) {
            mbl_text_options_t how = options;
            how.low_memory = low_memory;
            assert_int_equal(run(GOLDEN, types[i].type, &how, n_prompts, WIDTH), MBL_OK);
            double c = relative_error_f64(context, want_context, n_prompts * TOKENS * WIDTH),
                   p = relative_error_f64(pooled, want_pooled, n_prompts * POOLED);
            print_message("%s: context %.2g, pooled %.2g\n", mbl_dtype_name(types[i].type), c, p);
            assert_near(c, 0, types[i].tolerance);
            assert_near(p, 0, types[i].tolerance);
        }
}

/* Without T5 its tokens are zeros, all else is as with it, and the context may be wider than CLIP's states.
 */
static void without_t5(void **state) {
    (void)state;
    mbl_text_options_t how = options;
    how.without_t5 = true;
    read_expected();
    assert_int_equal(run(GOLDEN, MBL_F32, &how, n_prompts, WIDTH), MBL_OK);
    for (size_t i = 0; i < n_prompts; i++) {
        const double *one = context + i * TOKENS * WIDTH, *want = want_context + i * TOKENS * WIDTH;
        assert_near(relative_error_f64(one, want, CLIP_TOKENS * WIDTH), 0, 1e-5);
        for (size_t k = CLIP_TOKENS * WIDTH; k < TOKENS * WIDTH; k++)
            assert_true(one[k] == 0);
    }
    assert_near(relative_error_f64(pooled, want_pooled, n_prompts * POOLED), 0, 1e-5);
    assert_int_equal(run(GOLDEN, MBL_F32, &how, n_prompts, CLIP_WIDTH - 1), MBL_ERR_ARG);
    assert_int_equal(run(GOLDEN, MBL_F32, &options, n_prompts, WIDTH - 1), MBL_ERR_ARG);
}

/* A copy of the golden folder, with model_index.json as given: null for what it does not have. */
static void copy_folder(bool second, bool third) {
    char command[600], path[300];
    snprintf(command, sizeof command, "rm -rf '%s'/* && cp -r '%s'/. '%s'", folder, GOLDEN, folder);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    json_t *index = read_json(path);
    for (int i = 2; i <= 3; i++)
        if (!(i == 2 ? second : third)) {
            char name[32];
            snprintf(name, sizeof name, "text_encoder_%d", i);
            json_object_set_new(index, name, json_pack("[n, n]"));
        }
    assert_int_equal(mbl_json_write(path, index), MBL_OK);
    json_decref(index);
}

static void fewer_encoders(void **state) {
    (void)state;
    read_expected();
    copy_folder(false, false); /* one CLIP encoder: its tokens alone */
    assert_int_equal(run(folder, MBL_F32, &options, n_prompts, WIDTH), MBL_OK);
    for (size_t i = 0; i < n_prompts * CLIP_TOKENS; i++) {
        size_t prompt = i / CLIP_TOKENS, token = i % CLIP_TOKENS;
        const double *want = want_context + (prompt * TOKENS + token) * WIDTH;
        assert_near(relative_error_f64(context + i * WIDTH, want, 16), 0, 1e-5);
        for (size_t k = 16; k < WIDTH; k++)
            assert_true(context[i * WIDTH + k] == 0);
    }
    copy_folder(true, false); /* T5's tokens count though there is none */
    assert_int_equal(run(folder, MBL_F32, &options, n_prompts, WIDTH), MBL_OK);
    for (size_t k = 0; k < CLIP_TOKENS * WIDTH; k++)
        assert_near(context[k], want_context[k], 1e-4);
    assert_true(context[CLIP_TOKENS * WIDTH] == 0 && context[TOKENS * WIDTH - 1] == 0);
}

/* Encoders that were taken off the device come back and give the same bits. */
static void released_encoders_come_back(void **state) {
    (void)state;
    mbl_text_t *text;
    mbl_tensor_t c, p;
    static float first[2 * TOKENS * WIDTH], again[2 * TOKENS * WIDTH];
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &c, 3, (size_t)2, (size_t)TOKENS, (size_t)WIDTH), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &p, 2, (size_t)2, (size_t)POOLED), MBL_OK);
    assert_int_equal(mbl_text_open(ops, MBL_F32, GOLDEN, &options, &text), MBL_OK);
    assert_int_equal(mbl_text_encode(text, prompts, 2, &c, &p), MBL_OK);
    assert_int_equal(mbl_tensor_download(ops, &c, first), MBL_OK);
    size_t live = mbl_mem_live();
    mbl_text_release(text);
    assert_true(mbl_mem_live() < live - 20);
    assert_int_equal(mbl_text_width(text), WIDTH);
    assert_int_equal(mbl_text_pooled(text), POOLED);
    assert_int_equal(mbl_text_encode(text, prompts, 2, &c, &p), MBL_OK);
    assert_int_equal(mbl_tensor_download(ops, &c, again), MBL_OK);
    assert_memory_equal(first, again, sizeof first);
    mbl_tensor_free(ops, &c);
    mbl_tensor_free(ops, &p);
    mbl_text_close(text);
}

static void cut_prompts(void **state) {
    (void)state;
    mbl_text_t *text;
    mbl_cuts_t cuts;
    static const char *const names[] = {"text_encoder", "text_encoder_2", "text_encoder_3"};
    const size_t limits[] = {CLIP_TOKENS, CLIP_TOKENS, TOKENS - CLIP_TOKENS};
    assert_int_equal(mbl_text_open(ops, MBL_F32, GOLDEN, &options, &text), MBL_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mbl_text_cuts(text, i, prompts, n_prompts, &cuts), MBL_OK);
        assert_string_equal(cuts.encoder, names[i]);
        assert_int_equal(cuts.limit, limits[i]);
        assert_in_range(cuts.count, 1, 2);
        assert_int_equal(cuts.first[0].prompt, 3);
    }
    assert_int_equal(mbl_text_cuts(text, 3, prompts, n_prompts, &cuts), MBL_OK);
    assert_null(cuts.encoder);
    static const char *const broken[] = {"caf\xe9"};
    mbl_tensor_t c, p;
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &c, 3, (size_t)1, (size_t)TOKENS, (size_t)WIDTH), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &p, 2, (size_t)1, (size_t)POOLED), MBL_OK);
    assert_int_equal(mbl_text_encode(text, broken, 1, &c, &p), MBL_ERR_ARG);
    mbl_tensor_free(ops, &c);
    mbl_tensor_free(ops, &p);
    mbl_text_close(text);
}

static void expect_refused(const char *change, mbl_status_t status, const char *part) {
    char command[900];
    mbl_text_t *text;
    copy_folder(true, true);
    snprintf(command, sizeof command, "cd '%s' && %s", folder, change);
    assert_int_equal(system(command), 0);
    mbl_status_t got = mbl_text_open(ops, MBL_F32, folder, &options, &text);
    if (got != status || !strstr(mbl_fail_message(), part))
        fail_msg("%s: %s \"%s\", expected %s with \"%s\"", change, mbl_status_name(got), mbl_fail_message(),
                 mbl_status_name(status), part);
}

static void parts_that_do_not_fit(void **state) {
    (void)state;
    expect_refused("rm -r tokenizer && cp -r tokenizer_3 tokenizer", MBL_ERR_CONFIG,
                   "tokenizer/ is a tokenizer of T5; expected one of CLIP");
    expect_refused("rm -r tokenizer_3 && cp -r tokenizer_2 tokenizer_3", MBL_ERR_CONFIG,
                   "tokenizer_3/ is a tokenizer of CLIP; expected one of T5");
    expect_refused("rm -r tokenizer_2 && cp -r '" MBL_SOURCE_DIR "/tests/golden/clip_tokens' tokenizer_2",
                   MBL_ERR_CONFIG, "tokenizer_2/ has 49408 tokens, text_encoder_2/ knows");
    expect_refused(
        "sed -i 's/\"model_max_length\": 20/\"model_max_length\": 21/' tokenizer/tokenizer_config.json",
        MBL_ERR_CONFIG, "model_max_length: 21; expected at most text_encoder/'s max_position_embeddings 20");
    expect_refused("rm -r text_encoder_3", MBL_ERR_IO, "text_encoder_3/config.json: cannot be opened");
    expect_refused("rm -r tokenizer_2", MBL_ERR_IO, "tokenizer_2/vocab.json: cannot be opened");
    expect_refused("rm -r text_encoder_2 && cp -r text_encoder_3 text_encoder_2", MBL_ERR_FORMAT,
                   "text_encoder_2: tensor text_model.");
    expect_refused("rm model_index.json", MBL_ERR_IO, "model_index.json: cannot be opened");
    expect_refused(
        "head -c 20000 text_encoder_3/model.safetensors > x && mv x text_encoder_3/model.safetensors",
        MBL_ERR_FORMAT, "model.safetensors: tensor");
    mbl_text_t *text;
    const mbl_text_options_t many = {.max_tokens = 513};
    assert_int_equal(mbl_text_open(ops, MBL_F32, GOLDEN, &many, &text), MBL_ERR_ARG);
}

static void survives_failing_memory(void **state) {
    (void)state;
    assert_int_equal(run(GOLDEN, MBL_F32, &options, 2, WIDTH),
                     MBL_OK); /* what the backend keeps for such shapes */
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n += n < 200 ? 1 : 7) {
        mbl_mem_fail_at(n);
        status = run(GOLDEN, MBL_F32, &options, 2, WIDTH);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK && mbl_mem_live() != live)
            fail_msg("allocation %zu: %zu blocks stay (%s)", n, mbl_mem_live() - live, mbl_fail_message());
    }
    assert_in_range(n, 100, 5000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity),
        cmocka_unit_test(without_t5),
        cmocka_unit_test(fewer_encoders),
        cmocka_unit_test(released_encoders_come_back),
        cmocka_unit_test(cut_prompts),
        cmocka_unit_test(parts_that_do_not_fit),
        cmocka_unit_test(survives_failing_memory),
    };
    need_backend();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
