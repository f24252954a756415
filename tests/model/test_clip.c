/* src/model/text/clip: parity with transformers (tests/golden/make_clip.py), fresh encoders, damaged folders,
 * failing memory. */
#include "ops_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/text/clip.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 4096 };
#define GOLDEN(name) MBL_SOURCE_DIR "/tests/golden/clip/" name

static bool low_memory; /* what encoders are opened with */

static int set_up(void **state) {
    (void)state;
    return open_ops_and_folder("check", 1);
}

typedef struct {
    int32_t ids[64];
    size_t end[8], n, tokens;
} inputs_t;

static inputs_t read_inputs(const char *name) {
    char path[512];
    inputs_t in = {0};
    snprintf(path, sizeof path, "%s/inputs.json", name);
    json_t *root = read_json(path);
    json_t *ids = json_object_get(root, "ids"), *end = json_object_get(root, "end");
    in.n = json_array_size(ids);
    in.tokens = json_array_size(json_array_get(ids, 0));
    for (size_t i = 0; i < in.n; i++) {
        in.end[i] = (size_t)json_integer_value(json_array_get(end, i));
        for (size_t t = 0; t < in.tokens; t++)
            in.ids[i * in.tokens + t] =
                (int32_t)json_integer_value(json_array_get(json_array_get(ids, i), t));
    }
    json_decref(root);
    return in;
}

/* Results of a folder's encoder as doubles; hidden goes into the left columns of a wider tensor, as the
 * pipeline does it. */
static mbl_status_t run(const char *name, mbl_dtype_t type, const inputs_t *in, double *hidden,
                        double *pooled) {
    mbl_clip_t *clip = NULL;
    mbl_tensor_t h = {0}, p = {0}, h64 = {0}, p64 = {0};
    mbl_status_t status = mbl_clip_open(ops, type, name, low_memory, &clip);
    if (status != MBL_OK)
        return status;
    size_t d = mbl_clip_config(clip)->hidden_size, pd = mbl_clip_config(clip)->projection_dim;
    MBL_TRY_GOTO(mbl_tensor_new(ops, type, &h, 3, in->n, in->tokens, d), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, type, &p, 2, in->n, pd), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &h64, 3, in->n, in->tokens, d), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &p64, 2, in->n, pd), done);
    MBL_TRY_GOTO(mbl_clip_forward(clip, in->ids, in->end, in->n, in->tokens, &h, &p), done);
    MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &h64, .src = &h), done);
    MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &p64, .src = &p), done);
    MBL_TRY_GOTO(mbl_tensor_download(ops, &h64, hidden), done);
    status = mbl_tensor_download(ops, &p64, pooled);
done:
    mbl_tensor_free(ops, &h);
    mbl_tensor_free(ops, &p);
    mbl_tensor_free(ops, &h64);
    mbl_tensor_free(ops, &p64);
    mbl_clip_close(clip);
    return status;
}

static void parity(const char *name) {
    static double hidden[MAX], pooled[MAX], want_hidden[MAX], want_pooled[MAX];
    static const struct {
        mbl_dtype_t type;
        double tolerance;
    } types[] = {{MBL_F64, 1e-12}, {MBL_F32, 2e-6}, {MBL_BF16, 3e-2}};
    inputs_t in = read_inputs(name);
    char path[512];
    snprintf(path, sizeof path, "%s/expected.safetensors", name);
    mbl_st_t *st;
    assert_int_equal(mbl_st_open(path, &st), MBL_OK);
    size_t nh = mbl_st_find(st, "hidden")->bytes / 8, np = mbl_st_find(st, "pooled")->bytes / 8;
    assert_in_range(nh, 1, MAX);
    assert_int_equal(mbl_st_read_f64(st, "hidden", want_hidden, nh), MBL_OK);
    assert_int_equal(mbl_st_read_f64(st, "pooled", want_pooled, np), MBL_OK);
    mbl_st_close(st);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(run(name, types[i].type, &in, hidden, pooled), MBL_OK);
        double h = relative_error_f64(hidden, want_hidden, nh),
               p = relative_error_f64(pooled, want_pooled, np);
        print_message("%s %s: hidden %.2g, pooled %.2g\n", name + strlen(GOLDEN("")),
                      mbl_dtype_name(types[i].type), h, p);
        assert_near(h, 0, types[i].tolerance);
        assert_near(p, 0, types[i].tolerance);
    }
}

/* A layer at a time gives the same bits, however often. */
static void low_memory_changes_nothing(void **state) {
    (void)state;
    static double hidden[MAX], pooled[MAX], hidden2[MAX], pooled2[MAX];
    inputs_t in = read_inputs(GOLDEN("three_layers"));
    assert_int_equal(run(GOLDEN("three_layers"), MBL_F32, &in, hidden, pooled), MBL_OK);
    low_memory = true;
    assert_int_equal(run(GOLDEN("three_layers"), MBL_F32, &in, hidden2, pooled2), MBL_OK);
    low_memory = false;
    assert_memory_equal(hidden, hidden2, in.n * in.tokens * 32 * sizeof *hidden);
    assert_memory_equal(pooled, pooled2, in.n * 20 * sizeof *pooled);
}

static void parity_one_layer(void **state) {
    (void)state;
    parity(GOLDEN("one_layer"));
}

static void parity_three_layers(void **state) {
    (void)state;
    parity(GOLDEN("three_layers"));
}

static void fresh_encoders(void **state) {
    (void)state;
    static double a[MAX], b[MAX], pa[MAX], pb[MAX];
    const mbl_clip_config_t config = {50, 16, 32, 2, 4, 8, 12, 1e-5, MBL_ACT_QUICK_GELU, 49};
    const inputs_t in = {{48, 7, 8, 49, 49, 48, 8, 7, 49, 49}, {3, 3}, 2, 5};
    char one[300], two[300];
    snprintf(one, sizeof one, "%s/one", folder);
    snprintf(two, sizeof two, "%s/two", folder);
    assert_int_equal(mbl_clip_create(&config, 3, true, one), MBL_OK);
    assert_int_equal(mbl_clip_create(&config, 3, true, two), MBL_OK);
    assert_int_equal(run(one, MBL_F32, &in, a, pa), MBL_OK);
    assert_int_equal(run(two, MBL_F32, &in, b, pb), MBL_OK);
    size_t nh = 2 * 5 * 16, np = 2 * 12;
    assert_memory_equal(a, b, nh * sizeof *a);
    double square = 0;
    for (size_t i = 0; i < nh; i++)
        square += a[i] * a[i] / (double)nh;
    assert_in_range((int)(square * 10), 10, 40); /* token plus position: variance about 2 */
    assert_true(relative_error_f64(pa, pa + np / 2, np / 2) > 0.1); /* the order of words shows */
    assert_int_equal(mbl_clip_create(&config, 4, true, two), MBL_OK);
    assert_int_equal(run(two, MBL_F32, &in, b, pb), MBL_OK);
    assert_memory_not_equal(a, b, nh * sizeof *a);
}

/* What follows the end token, and other prompts of the batch, change nothing. */
static void samples_and_padding_are_independent(void **state) {
    (void)state;
    static double h[MAX], p[MAX], h2[MAX], p2[MAX];
    inputs_t in = read_inputs(GOLDEN("three_layers")),
             one = {.n = 1, .tokens = in.tokens, .end = {in.end[1]}};
    memcpy(one.ids, in.ids + in.tokens, in.tokens * sizeof *in.ids);
    assert_int_equal(run(GOLDEN("three_layers"), MBL_F32, &in, h, p), MBL_OK);
    for (size_t t = one.end[0] + 1; t < one.tokens; t++)
        one.ids[t] = 17;
    assert_int_equal(run(GOLDEN("three_layers"), MBL_F32, &one, h2, p2), MBL_OK);
    assert_memory_equal(p + 20, p2, 20 * sizeof *p);
    assert_memory_equal(h + in.tokens * 32, h2, 5 * 32 * sizeof *h);
    one.ids[1] = 31;
    assert_int_equal(run(GOLDEN("three_layers"), MBL_F32, &one, h2, p2), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "token 31"));
}

static void expect_open_fails(const char *path, mbl_status_t status, const char *part) {
    mbl_clip_t *clip;
    mbl_status_t got = mbl_clip_open(ops, MBL_F32, path, false, &clip);
    assert_failed(got, status, part);
}

static void damaged_folders(void **state) {
    (void)state;
    static const struct {
        const char *config, *part;
        mbl_status_t status;
    } cases[] = {
        {"{\"hidden_size\": \"big\"}", "config.json: hidden_size: \"big\"", MBL_ERR_CONFIG},
        {"{\"hidden_act\": \"relu\"}", "hidden_act: \"relu\"", MBL_ERR_CONFIG},
        {"{\"hidden_size\": 10, \"num_attention_heads\": 3}", "multiple of num_attention_heads",
         MBL_ERR_CONFIG},
        {"{\"num_hidden_layers\": 0}", "num_hidden_layers: 0", MBL_ERR_CONFIG},
        {"{\"vocab_size\": 50, \"hidden_size\": 16, \"intermediate_size\": 32, \"num_hidden_layers\": 2, "
         "\"num_attention_heads\": 4, \"max_position_embeddings\": 8, \"projection_dim\": 13}",
         "text_projection.weight: 2 dimensions 12 x 16; expected 13 x 16", MBL_ERR_FORMAT},
        {"{\"vocab_size\": 50, \"hidden_size\": 16, \"intermediate_size\": 32, \"num_hidden_layers\": 3, "
         "\"num_attention_heads\": 4, \"max_position_embeddings\": 8, \"projection_dim\": 12}",
         "text_model.encoder.layers.2.layer_norm1.weight: missing", MBL_ERR_FORMAT},
    };
    const mbl_clip_config_t config = {50, 16, 32, 2, 4, 8, 12, 1e-5, MBL_ACT_QUICK_GELU, 49};
    char path[300], json[320];
    snprintf(path, sizeof path, "%s/bad", folder);
    snprintf(json, sizeof json, "%s/config.json", path);
    assert_int_equal(mbl_clip_create(&config, 3, false, path), MBL_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_whole(json, cases[i].config, strlen(cases[i].config));
        expect_open_fails(path, cases[i].status, cases[i].part);
    }
}

static void survives_failing_memory(void **state) {
    (void)state;
    static double h[MAX], p[MAX];
    inputs_t in = read_inputs(GOLDEN("one_layer"));
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = run(GOLDEN("one_layer"), MBL_F32, &in, h, p);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK)
            assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 40, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity_one_layer),
        cmocka_unit_test(parity_three_layers),
        cmocka_unit_test(low_memory_changes_nothing),
        cmocka_unit_test(fresh_encoders),
        cmocka_unit_test(samples_and_padding_are_independent),
        cmocka_unit_test(damaged_folders),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
