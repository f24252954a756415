/* src/model/text/t5: parity with transformers (tests/golden/make_t5.py), a layer at a time, files as they are
 * published, damaged folders, failing memory. MARBLE_TEST_BACKEND names a backend other than check. With
 * MARBLE_T5=FOLDER it instead encodes one prompt with that encoder and says how long it takes and in how much
 * memory. ctest-backends: fake cuda */
#include "ops_case.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/safetensors.h"
#include "model/text/t5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 4096, PROMPTS = 2, TOKENS = 45, CONTEXT = TOKENS + 6 };
#define GOLDEN(name) MBL_SOURCE_DIR "/tests/golden/t5/" name

static int set_up(void **state) {
    (void)state;
    return open_ops_and_folder(getenv("MARBLE_TEST_BACKEND") ? test_backend() : "check", 1);
}

/* Returns how far transformers is from the golden states in bf16. */
static double read_ids(const char *name, int32_t *ids) {
    char path[512];
    snprintf(path, sizeof path, "%s/inputs.json", name);
    json_t *root = read_json(path);
    json_t *all = json_object_get(root, "ids");
    assert_int_equal(json_array_size(all), PROMPTS);
    for (size_t i = 0; i < PROMPTS; i++) {
        assert_int_equal(json_array_size(json_array_get(all, i)), TOKENS);
        for (size_t t = 0; t < TOKENS; t++)
            ids[i * TOKENS + t] = (int32_t)json_integer_value(json_array_get(json_array_get(all, i), t));
    }
    double error = json_real_value(json_object_get(root, "bf16_error"));
    json_decref(root);
    return error;
}

/* The last tokens of a wider context, as the prompt embedding has them; what lies before stays. */
static mbl_status_t run(const char *name, mbl_dtype_t type, bool low_memory, const int32_t *ids, size_t n,
                        double *out) {
    mbl_t5_t *t5 = NULL;
    mbl_tensor_t context = {0}, wide = {0};
    double *host = NULL;
    mbl_status_t status = mbl_t5_open(ops, type, name, low_memory, &t5);
    if (status != MBL_OK)
        return status;
    size_t d = mbl_t5_config(t5)->d_model, before = CONTEXT - TOKENS;
    MBL_ALLOC_GOTO(host, n * CONTEXT * d, done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, type, &context, 3, n, (size_t)CONTEXT, d), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &wide, 3, n, (size_t)CONTEXT, d), done);
    mbl_tensor_t last = context;
    last.dim[1] = TOKENS;
    last.data = (char *)last.data + before * d * mbl_dtype_size(type);
    MBL_TRY_GOTO(mbl_t5_forward(t5, ids, n, TOKENS, &last), done);
    MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &wide, .src = &context), done);
    MBL_TRY_GOTO(mbl_tensor_download(ops, &wide, host), done);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < before * d; k++)
            assert_true(host[i * CONTEXT * d + k] == 0);
        memcpy(out + i * TOKENS * d, host + (i * CONTEXT + before) * d, TOKENS * d * sizeof *out);
    }
done:
    mbl_free(host);
    mbl_tensor_free(ops, &context);
    mbl_tensor_free(ops, &wide);
    mbl_t5_close(t5);
    return status;
}

/* transformers computes variances and softmax in f32 whatever the type. */
static void parity(const char *name) {
    static double hidden[MAX], want[MAX];
    static const struct {
        mbl_dtype_t type;
        double tolerance;
    } types[] = {{MBL_F64, 2e-6}, {MBL_F32, 3e-6}, {MBL_BF16, 0}};
    int32_t ids[PROMPTS * TOKENS];
    char path[512];
    mbl_st_t *st;
    snprintf(path, sizeof path, "%s/expected.safetensors", name);
    assert_int_equal(mbl_st_open(path, &st), MBL_OK);
    size_t count = mbl_st_find(st, "hidden")->bytes / 8;
    assert_in_range(count, 1, MAX);
    assert_int_equal(mbl_st_read_f64(st, "hidden", want, count), MBL_OK);
    mbl_st_close(st);
    double rounding = read_ids(name, ids);
    assert_true(rounding > 0.01 && rounding < 0.1);
    for (int i = 0; i < 3; i++)
        for (int low_memory = 0; low_memory < 2; low_memory++) {
            assert_int_equal(run(name, types[i].type, low_memory, ids, PROMPTS, hidden), MBL_OK);
            double error = relative_error_f64(hidden, want, count);
            print_message("%s %s: %.2g\n", name + strlen(GOLDEN("")), mbl_dtype_name(types[i].type), error);
            assert_near(error, 0, types[i].type == MBL_BF16 ? 1.25 * rounding : types[i].tolerance);
        }
}

static void parity_whole(void **state) {
    (void)state;
    parity(GOLDEN("whole"));
}

static void parity_shards(void **state) {
    (void)state;
    parity(GOLDEN("shards"));
}

static void copy_file(const char *from, const char *name, const char *to) {
    char source[512], target[512];
    size_t size;
    snprintf(source, sizeof source, "%s/%s", from, name);
    snprintf(target, sizeof target, "%s/%s", folder, to);
    char *data = read_whole(source, &size);
    write_whole(target, data, size);
    free(data);
}

/* The index of a variant has two spellings, and a set without a variant goes before it. */
static void index_of_either_spelling(void **state) {
    (void)state;
    static double a[MAX], b[MAX];
    int32_t ids[PROMPTS * TOKENS];
    char path[512];
    read_ids(GOLDEN("shards"), ids);
    copy_file(GOLDEN("shards"), "config.json", "config.json");
    copy_file(GOLDEN("shards"), "model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json");
    for (int i = 1; i <= 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.fp16-0000%d-of-00004.safetensors", i);
        copy_file(GOLDEN("shards"), name, name);
    }
    assert_int_equal(run(GOLDEN("shards"), MBL_F32, false, ids, PROMPTS, a), MBL_OK);
    assert_int_equal(run(folder, MBL_F32, false, ids, PROMPTS, b), MBL_OK);
    assert_memory_equal(a, b, sizeof a);
    copy_file(GOLDEN("whole"), "model.safetensors", "model.safetensors");
    copy_file(GOLDEN("whole"), "config.json", "config.json");
    read_ids(GOLDEN("whole"), ids);
    assert_int_equal(run(GOLDEN("whole"), MBL_F32, false, ids, PROMPTS, a), MBL_OK);
    assert_int_equal(run(folder, MBL_F32, false, ids, PROMPTS, b), MBL_OK);
    assert_memory_equal(a, b, sizeof a);
    snprintf(path, sizeof path, "%s/model.fp16-00001-of-00004.safetensors", folder);
    remove(path);
}

/* A prompt alone and among others, and ids of another tokenizer. */
static void samples_are_independent(void **state) {
    (void)state;
    static double both[MAX], one[MAX];
    int32_t ids[PROMPTS * TOKENS];
    read_ids(GOLDEN("whole"), ids);
    assert_int_equal(run(GOLDEN("whole"), MBL_F32, false, ids, PROMPTS, both), MBL_OK);
    assert_int_equal(run(GOLDEN("whole"), MBL_F32, true, ids + TOKENS, 1, one), MBL_OK);
    assert_memory_equal(both + TOKENS * 24, one, TOKENS * 24 * sizeof *one);
    ids[TOKENS + 3] = 31;
    assert_int_equal(run(GOLDEN("whole"), MBL_F32, false, ids, PROMPTS, one), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "token 31 in a text encoder of 31 tokens"));
}

static void damaged_folders(void **state) {
    (void)state;
    static const struct {
        const char *config, *part;
        mbl_status_t status;
    } cases[] = {
        {"{}", "feed_forward_proj: \"relu\"; expected gated-gelu", MBL_ERR_UNSUPPORTED},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"d_model\": \"x\"}", "d_model: \"x\"", MBL_ERR_CONFIG},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"relative_attention_num_buckets\": 6}",
         "relative_attention_num_buckets: 6; expected a multiple of 4", MBL_ERR_CONFIG},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"vocab_size\": 31, \"d_model\": 24, \"d_kv\": 8, "
         "\"num_heads\": 3, "
         "\"d_ff\": 41, \"num_layers\": 2}",
         "wi_0.weight: 2 dimensions 40 x 24; expected 41 x 24", MBL_ERR_FORMAT},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"vocab_size\": 31, \"d_model\": 24, \"d_kv\": 8, "
         "\"num_heads\": 3, "
         "\"d_ff\": 40, \"num_layers\": 3}",
         "encoder.block.2.layer.0.layer_norm.weight: missing", MBL_ERR_FORMAT},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"vocab_size\": 31, \"d_model\": 24, \"d_kv\": 8, "
         "\"num_heads\": 3, "
         "\"d_ff\": 40, \"num_layers\": 1}",
         "not asked for by config.json", MBL_ERR_FORMAT},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"vocab_size\": 32, \"d_model\": 24, \"d_kv\": 8, "
         "\"num_heads\": 3, "
         "\"d_ff\": 40, \"num_layers\": 2}",
         "shared.weight: another shape; expected 32 x 24", MBL_ERR_FORMAT},
        {"{\"feed_forward_proj\": \"gated-gelu\", \"vocab_size\": 31, \"d_model\": 24, \"d_kv\": 8, "
         "\"num_heads\": 3, "
         "\"d_ff\": 40, \"num_layers\": 2, \"relative_attention_num_buckets\": 16}",
         "relative_attention_bias.weight: 96 elements", MBL_ERR_FORMAT},
    };
    char path[512];
    copy_file(GOLDEN("whole"), "model.safetensors", "model.safetensors");
    snprintf(path, sizeof path, "%s/config.json", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_t5_t *t5;
        write_whole(path, cases[i].config, strlen(cases[i].config));
        mbl_status_t status = mbl_t5_open(ops, MBL_F32, folder, false, &t5);
        assert_failed(status, cases[i].status, cases[i].part);
    }
}

static void survives_failing_memory(void **state) {
    (void)state;
    static double hidden[MAX];
    int32_t ids[PROMPTS * TOKENS];
    size_t live = mbl_mem_live(), n = 1;
    read_ids(GOLDEN("whole"), ids);
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = run(GOLDEN("whole"), MBL_F32, n % 2, ids, PROMPTS, hidden);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK)
            assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 40, 1000);
}

/* One prompt of 128 tokens with a layer in memory at a time, on as many threads as there are: seconds and the
 * most memory that was used. */
static int measure(const char *path) {
    enum { LENGTH = 128 };
    mbl_ops_t *cpu;
    mbl_t5_t *t5;
    mbl_tensor_t out;
    int32_t ids[LENGTH] = {3, 9, 1712, 1};
    double start = mbl_now(), opened;
    if (mbl_ops_open(test_backend(), 0, &cpu) != MBL_OK ||
        mbl_t5_open(cpu, MBL_BF16, path, true, &t5) != MBL_OK ||
        mbl_tensor_new(cpu, MBL_BF16, &out, 3, (size_t)1, (size_t)LENGTH, mbl_t5_config(t5)->d_model) !=
            MBL_OK)
        return 1;
    opened = mbl_now();
    if (mbl_t5_forward(t5, ids, 1, LENGTH, &out) != MBL_OK)
        return 1;
    printf("opened in %.1f s, a prompt of %d tokens in %.1f s, at most %.2f GiB\n", opened - start, LENGTH,
           mbl_now() - opened, (double)mbl_mem_peak() / 0x1p30);
    mbl_tensor_free(cpu, &out);
    mbl_t5_close(t5);
    mbl_ops_close(cpu);
    return 0;
}

int main(void) {
    if (getenv("MARBLE_T5"))
        return measure(getenv("MARBLE_T5"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity_whole),
        cmocka_unit_test(parity_shards),
        cmocka_unit_test(index_of_either_spelling),
        cmocka_unit_test(samples_are_independent),
        cmocka_unit_test(damaged_folders),
        cmocka_unit_test(survives_failing_memory),
    };
    need_backend();
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
