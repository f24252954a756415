/* src/model/lora_sites, lora_rules, lora_read: adapters as peft, diffusers and kohya's tools save them move
 * the model as their own loaders do (golden/make_lora_in.py), and what would be applied otherwise, or not at
 * all, is refused by name. */
#include "mmdit_case.h"

#include "base/copy.h"
#include "base/file.h"
#include "base/json.h"
#include "model/lora_file.h"
#include "model/safetensors.h"

#include <unistd.h>

#define GOLDEN MBL_SOURCE_DIR "/tests/golden/lora_in/"

static mbl_ops_t *ops;
static mbl_dit_t *model;
static mmdit_io_t io;
static char folder[256];

static int open_all(void **state) {
    (void)state;
    temporary_folder(folder);
    assert_ok(mbl_ops_open("cpu", 1, &ops));
    model = case_model(ops, MBL_F64, &mmdit_cases[0]); /* so that only the adapter is rounded */
    case_io(ops, MBL_F64, &mmdit_cases[0], SAMPLES, &io);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    io_free(&io);
    mbl_dit_close(model);
    mbl_ops_close(ops);
    remove_folder(folder);
    return 0;
}

static const char *in(const char *name) {
    static char path[6][512];
    static int next;
    char *out = path[next++ % 6];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

/* ---- applied exactly ---- */

/* The velocity with the adapter of `path` (NULL: none), [SAMPLES, C, H, W]; free it. */
static float *velocity(const char *path) {
    mbl_lora_config_t config = {.rank = 1, .alpha = 1};
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    mbl_tape_t *tape;
    mbl_tensor_t values;
    const mmdit_case_t *c = &mmdit_cases[0];
    if (path && mbl_lora_read_config(model, path, &config) != MBL_OK)
        fail_msg("%s: %s", path, mbl_fail_message());
    assert_ok(mbl_lora_new(model, &config, &lora));
    float *host = calloc(mbl_lora_size(lora), sizeof *host);
    double *exact = calloc(mbl_lora_size(lora), sizeof *exact);
    if (path)
        assert_ok(mbl_lora_read(lora, path, host));
    for (size_t i = 0; i < mbl_lora_size(lora); i++)
        exact[i] = (double)host[i];
    assert_ok(mbl_adapter_new(model, lora, &adapter));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &values, 1, mbl_lora_size(lora)));
    assert_ok(mbl_tensor_upload(ops, &values, exact));
    assert_ok(mbl_adapter_set(model, &adapter, &values));
    assert_ok(mbl_tape_new(model, lora, MBL_TAPE_NONE, SAMPLES, c->height, c->width, c->tokens, &tape));
    assert_ok(mbl_dit_forward(model, path ? &adapter : NULL, io_input(&io), tape, &io.v));
    float *out = calloc(mbl_tensor_count(&io.v), sizeof *out);
    for (size_t i = 0; i < mbl_tensor_count(&io.v); i++)
        out[i] = (float)((const double *)io.v.data)[i];
    free(exact);
    mbl_tape_free(tape);
    mbl_tensor_free(ops, &values);
    mbl_adapter_free(model, &adapter);
    mbl_lora_free(lora);
    free(host);
    return out;
}

static void the_velocity_is_that_of_their_loaders(void **state) {
    static const char *const cases[][2] = {{"base", NULL},
                                           {"peft", "peft"},
                                           {"peft", "peft/adapter_model.safetensors"},
                                           {"peft_rslora", "peft_rslora"},
                                           {"peft_patterns", "peft_patterns"},
                                           {"peft_both", "peft_both"},
                                           {"peft_fan", "peft_fan"},
                                           {"peft_layers", "peft_layers"},
                                           {"diffusers", "diffusers.safetensors"},
                                           {"diffusers_ranks", "diffusers_ranks.safetensors"},
                                           {"diffusers_metadata", "diffusers_metadata.safetensors"},
                                           {"diffusers_old", "diffusers_old.safetensors"},
                                           {"kohya", "kohya.safetensors"}};
    mbl_st_t *golden;
    size_t n = mbl_tensor_count(&io.v);
    float *want = calloc(n, sizeof *want), *base = velocity(NULL);
    (void)state;
    assert_ok(mbl_st_open(GOLDEN "velocity.safetensors", &golden));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s", cases[i][1] ? cases[i][1] : "");
        float *got = velocity(cases[i][1] ? path : NULL);
        assert_ok(mbl_st_read_f32(golden, cases[i][0], want, n));
        double error = relative_error_f32(got, want, n), change = relative_error_f32(base, want, n);
        if (error > 2e-7 || (i > 0 && change < 0.1))
            fail_msg("%s: off by %.2e; the adapter moves it by %.2e", path, error, change);
        free(got);
    }
    mbl_st_close(golden);
    free(want);
    free(base);
}

/* What one rank and one alpha say is not touched by any arithmetic. */
static void plain_values_are_the_bits_of_the_file(void **state) {
    mbl_lora_config_t config;
    mbl_lora_t *lora;
    mbl_st_t *st;
    (void)state;
    assert_ok(mbl_lora_read_config(model, GOLDEN "peft", &config));
    assert_int_equal(config.rank, 4);
    assert_near(config.alpha, 6, 0);
    assert_int_equal(config.n_targets, 2);
    assert_ok(mbl_lora_new(model, &config, &lora));
    float *host = calloc(mbl_lora_size(lora), sizeof *host);
    assert_ok(mbl_lora_read(lora, GOLDEN "peft", host));
    assert_ok(mbl_st_open(GOLDEN "peft/adapter_model.safetensors", &st));
    assert_int_equal(mbl_st_count(st), mbl_lora_param_count(lora));
    for (size_t i = 0; i < mbl_lora_param_count(lora); i++) {
        char name[160];
        const mbl_param_t *param = mbl_lora_param(lora, i);
        snprintf(name, sizeof name, "base_model.model.%s", param->name);
        const mbl_st_entry_t *entry = mbl_st_find(st, name);
        assert_non_null(entry);
        assert_memory_equal(host + param->offset, entry->data, entry->bytes);
    }
    mbl_st_close(st);
    free(host);
    mbl_lora_free(lora);
}

/* ---- refused by name ---- */

static void config_refused(const char *set, mbl_status_t status, const char *part) {
    mbl_lora_config_t config;
    json_t *words, *more = json_loads(set, 0, NULL);
    assert_non_null(more);
    assert_ok(mbl_json_read(GOLDEN "peft/adapter_config.json", &words));
    assert_int_equal(json_object_update(words, more), 0);
    assert_ok(mbl_json_write(in("peft/adapter_config.json"), words));
    json_decref(words);
    json_decref(more);
    mbl_fail_quiet(1);
    mbl_status_t got = mbl_lora_read_config(model, in("peft"), &config);
    mbl_fail_quiet(0);
    if (got != status || !strstr(mbl_fail_message(), part) ||
        !strstr(mbl_fail_message(), "adapter_config.json"))
        fail_msg("%s: %s \"%s\", expected %s with \"%s\"", set, mbl_status_name(got), mbl_fail_message(),
                 mbl_status_name(status), part);
}

static void what_peft_would_do_otherwise_is_refused(void **state) {
    static const struct {
        const char *set;
        mbl_status_t status;
        const char *part;
    } cases[] = {
        {"{\"peft_type\": \"LOHA\"}", MBL_ERR_UNSUPPORTED, "peft_type: found \"LOHA\", expected \"LORA\""},
        {"{\"r\": 8}", MBL_ERR_FORMAT, "r: 8 for transformer_blocks.0.attn."},
        {"{\"r\": 8}", MBL_ERR_FORMAT, "whose matrices have rank 4; expected 4"},
        {"{\"r\": 0}", MBL_ERR_CONFIG, "r: 0"},
        {"{\"r\": \"4\"}", MBL_ERR_CONFIG, "r: \"4\""},
        {"{\"lora_alpha\": \"x\"}", MBL_ERR_CONFIG, "lora_alpha"},
        {"{\"lora_alpha\": null}", MBL_ERR_UNSUPPORTED, "lora_alpha: found null, expected a number"},
        {"{\"r\": null}", MBL_ERR_UNSUPPORTED, "r: found null"},
        {"{\"rank_pattern\": null}", MBL_ERR_UNSUPPORTED, "rank_pattern: found null"},
        {"{\"alpha_pattern\": null}", MBL_ERR_UNSUPPORTED, "alpha_pattern: found null"},
        {"{\"use_rslora\": 1}", MBL_ERR_UNSUPPORTED, "use_rslora: found 1"},
        {"{\"rank_pattern\": {\"to_q\": 3}}", MBL_ERR_FORMAT,
         "r: 3 for transformer_blocks.0.attn.to_q, whose matrices have rank 4"},
        {"{\"rank_pattern\": {\"to_q\": 1.5}}", MBL_ERR_CONFIG, "rank_pattern.to_q: is no rank"},
        {"{\"rank_pattern\": [4]}", MBL_ERR_UNSUPPORTED, "rank_pattern: found [4]"},
        {"{\"alpha_pattern\": {\"blocks.[01].attn\": 3}}", MBL_ERR_UNSUPPORTED,
         "\"blocks.[01].attn\": a regular expression"},
        {"{\"alpha_pattern\": {\"to_q\": \"x\"}}", MBL_ERR_CONFIG, "alpha_pattern.to_q: is no number"},
        {"{\"target_modules\": [\"attn.to_q\"]}", MBL_ERR_FORMAT,
         "target_modules: does not name transformer_blocks.0.attn.add_k_proj"},
        {"{\"use_dora\": true}", MBL_ERR_UNSUPPORTED, "use_dora: found true, expected it off"},
        {"{\"lora_bias\": true}", MBL_ERR_UNSUPPORTED, "lora_bias"},
        {"{\"bias\": \"all\"}", MBL_ERR_UNSUPPORTED, "bias: found \"all\", expected \"none\""},
        {"{\"modules_to_save\": [\"proj_out\"]}", MBL_ERR_UNSUPPORTED, "modules_to_save"},
        {"{\"init_lora_weights\": \"pissa\"}", MBL_ERR_UNSUPPORTED, "init_lora_weights: found \"pissa\""},
        {"{\"layer_replication\": [[0, 2]]}", MBL_ERR_UNSUPPORTED, "layer_replication"},
        {"{\"alora_invocation_tokens\": [1, 2]}", MBL_ERR_UNSUPPORTED, "alora_invocation_tokens"},
        {"{\"of_a_later_version\": 0.5}", MBL_ERR_UNSUPPORTED, "of_a_later_version: found 0.5"},
    };
    mbl_lora_config_t config;
    (void)state;
    assert_ok(mbl_folder_copy(GOLDEN "peft", in("peft"), NULL));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        config_refused(cases[i].set, cases[i].status, cases[i].part);
    assert_ok(mbl_file_copy(GOLDEN "peft/adapter_config.json", in("peft/adapter_config.json")));
    assert_ok(mbl_lora_read_config(model, in("peft"), &config));
    /* PEFT's file alone says nothing of alpha */
    assert_int_equal(unlink(in("peft/adapter_config.json")), 0);
    assert_int_equal(mbl_lora_read_config(model, in("peft/adapter_model.safetensors"), &config),
                     MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "there is no adapter_config.json beside it"));
}

/* A file of A and B for to_q and to_k of three blocks, after `change`; its tensors are numbered block by
 * block: A and B of to_q, A and B of to_k. */
enum { FILE_TENSORS = 12 };
typedef struct {
    char name[FILE_TENSORS + 2][96];
    float data[FILE_TENSORS + 2][128];
    mbl_st_tensor_t tensors[FILE_TENSORS + 2];
    size_t n;
    const char *metadata;
} adapter_file_t;

static void fill_file(adapter_file_t *file) {
    memset(file, 0, sizeof *file);
    for (size_t i = 0; i < FILE_TENSORS; i++, file->n++) {
        snprintf(file->name[i], sizeof file->name[i],
                 "transformer.transformer_blocks.%zu.attn.to_%c.lora_%c.weight", i / 4, i % 4 < 2 ? 'q' : 'k',
                 i % 2 ? 'B' : 'A');
        for (size_t j = 0; j < 128; j++)
            file->data[i][j] = (float)(0.3 * hashed(hash_name(file->name[i]), j));
        file->tensors[i] =
            (mbl_st_tensor_t){file->name[i], MBL_F32, 2, {i % 2 ? 32 : 4, i % 2 ? 4 : 32}, file->data[i]};
    }
}

static void drop(adapter_file_t *file, size_t i) {
    memmove(&file->tensors[i], &file->tensors[i + 1], (file->n - i - 1) * sizeof *file->tensors);
    file->n--;
}

static void add(adapter_file_t *file, const char *name, int ndim, size_t rows, size_t columns) {
    file->tensors[file->n++] = (mbl_st_tensor_t){name, MBL_F32, ndim, {rows, columns}, file->data[0]};
}

/* Writes and reads the file: the configuration, then the values. */
static mbl_status_t read_file(const adapter_file_t *file) {
    const char *const metadata[] = {"lora_adapter_metadata", file->metadata, NULL};
    mbl_lora_config_t config;
    mbl_lora_t *lora;
    assert_ok(mbl_st_write(in("a.safetensors"), file->tensors, file->n, file->metadata ? metadata : NULL));
    MBL_TRY(mbl_lora_read_config(model, in("a.safetensors"), &config));
    MBL_TRY(mbl_lora_new(model, &config, &lora));
    float *host = calloc(mbl_lora_size(lora), sizeof *host);
    mbl_status_t status = mbl_lora_read(lora, in("a.safetensors"), host);
    free(host);
    mbl_lora_free(lora);
    return status;
}

static void file_refused(const adapter_file_t *file, mbl_status_t status, const char *part) {
    mbl_fail_quiet(1);
    mbl_status_t got = read_file(file);
    mbl_fail_quiet(0);
    if (got != status || !strstr(mbl_fail_message(), part) || !strstr(mbl_fail_message(), "a.safetensors"))
        fail_msg("%s \"%s\", expected %s with \"%s\"", mbl_status_name(got), mbl_fail_message(),
                 mbl_status_name(status), part);
}

static void tensors_that_do_not_belong_are_named(void **state) {
    static adapter_file_t file;
    (void)state;
    fill_file(&file);
    assert_ok(read_file(&file));
    drop(&file, 1);
    file_refused(&file, MBL_ERR_FORMAT,
                 "tensor transformer.transformer_blocks.0.attn.to_q.lora_A.weight: without a partner");
    drop(&file, 3);
    drop(&file, 4);
    drop(&file, 5);
    file_refused(&file, MBL_ERR_FORMAT, "without a partner; expected A and B");
    fill_file(&file);
    for (size_t i = 0; i < 5; i++)
        drop(&file, i); /* the first, then every second one */
    file_refused(&file, MBL_ERR_FORMAT, "and 2 more: without a partner");
    fill_file(&file);
    add(&file, "transformer.proj_out.lora_A.weight", 2, 4, 32);
    file_refused(&file, MBL_ERR_UNSUPPORTED, "tensor transformer.proj_out.lora_A.weight: not a LoRA matrix");
    add(&file, "text_encoder.text_model.encoder.layers.0.q.lora_A.weight", 2, 4, 32);
    file_refused(&file, MBL_ERR_UNSUPPORTED, "text_encoder.text_model");
    fill_file(&file);
    add(&file, "transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", 1, 32, 0);
    file_refused(&file, MBL_ERR_UNSUPPORTED, "lora_magnitude_vector");
    fill_file(&file);
    add(&file, "transformer.transformer_blocks.0.attn.to_q.lora_B.bias", 1, 32, 0);
    file_refused(&file, MBL_ERR_UNSUPPORTED, "to_q.lora_B.bias");
    fill_file(&file);
    add(&file, "transformer_blocks.0.attn.to_q.lora_A.weight", 2, 4,
        32); /* a second one, without the prefix */
    file_refused(&file, MBL_ERR_FORMAT, "two tensors of one kind");
    fill_file(&file);
    add(&file, "transformer.transformer_blocks.0.ff.net.2.lora_down.weight", 2, 1, 128);
    add(&file, "transformer.transformer_blocks.0.ff.net.2.lora_up.weight", 2, 32, 1);
    file_refused(&file, MBL_ERR_FORMAT, "one way of naming");
    fill_file(&file);
    file.tensors[1].dim[0] = 42; /* B of 42 x 3 */
    file.tensors[1].dim[1] = 3;
    file_refused(&file, MBL_ERR_FORMAT, "A is 4 x 32, B 42 x 3; expected one rank");
    fill_file(&file);
    file.tensors[0].dim[1] = 16; /* of a narrower model */
    file_refused(&file, MBL_ERR_FORMAT,
                 "attn.to_q.lora_A.weight: the model has no linear of that name and shape");
    snprintf(file.name[0], sizeof file.name[0], "transformer.transformer_blocks.7.attn.to_q.lora_A.weight");
    snprintf(file.name[1], sizeof file.name[1], "transformer.transformer_blocks.7.attn.to_q.lora_B.weight");
    file_refused(&file, MBL_ERR_FORMAT,
                 "transformer_blocks.7.attn.to_q.lora_A.weight: the model has no linear");
}

static void values_that_are_no_numbers_are_named(void **state) {
    static adapter_file_t file;
    (void)state;
    fill_file(&file);
    file.data[3][17] = NAN;
    file_refused(&file, MBL_ERR_FORMAT, "transformer_blocks.0.attn.to_k.lora_B.weight");
    file.data[3][17] = INFINITY;
    file_refused(&file, MBL_ERR_FORMAT, "transformer_blocks.0.attn.to_k.lora_B.weight");
    static float alpha = NAN;
    fill_file(&file);
    add(&file, "transformer.transformer_blocks.0.attn.to_q.alpha", 0, 0, 0);
    file.tensors[FILE_TENSORS].data = &alpha;
    file_refused(&file, MBL_ERR_FORMAT, "transformer_blocks.0.attn.to_q.alpha");
    alpha = 2;
    assert_ok(read_file(&file));
    file.tensors[FILE_TENSORS].name = "transformer.transformer_blocks.0.attn.to_v.alpha";
    file_refused(&file, MBL_ERR_FORMAT, "to_v.alpha: without a partner");
}

static void metadata_is_read_as_the_configuration_is(void **state) {
    static adapter_file_t file;
    (void)state;
    fill_file(&file);
    file.metadata = "{\"transformer.r\": 4, \"transformer.lora_alpha\": 8, \"text_encoder.r\": 9}";
    assert_ok(read_file(&file));
    file.metadata = "{\"transformer.r\": 16, \"transformer.lora_alpha\": 8}";
    file_refused(&file, MBL_ERR_FORMAT, "lora_adapter_metadata: r: 16 for transformer_blocks.0.attn.to_");
    file.metadata = "{\"transformer.r\": 4, \"transformer.use_dora\": true}";
    file_refused(&file, MBL_ERR_UNSUPPORTED, "lora_adapter_metadata: use_dora");
    file.metadata = "[4]";
    file_refused(&file, MBL_ERR_FORMAT, "lora_adapter_metadata: is no JSON object");
    file.metadata = "{\"transformer.r\": 4, \"transformer.lora_alpha\": 8}";
    add(&file, "transformer.transformer_blocks.0.attn.to_q.alpha", 0, 0, 0);
    file_refused(&file, MBL_ERR_FORMAT, "to_q.alpha: an alpha beside that of");
}

static void no_memory_is_survived(void **state) {
    size_t live = mbl_mem_live(), failures = 0;
    static const char *const paths[] = {GOLDEN "peft_patterns", GOLDEN "diffusers_metadata.safetensors",
                                        GOLDEN "kohya.safetensors"};
    mbl_lora_config_t config;
    mbl_lora_t *lora;
    (void)state;
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        assert_ok(mbl_lora_read_config(model, paths[p], &config));
        assert_ok(mbl_lora_new(model, &config, &lora));
        float *host = calloc(mbl_lora_size(lora), sizeof *host);
        size_t here = mbl_mem_live();
        mbl_fail_quiet(1);
        for (size_t at = 1;; at++) {
            size_t before = mbl_mem_count();
            mbl_mem_fail_at(at);
            mbl_status_t status = mbl_lora_read_config(model, paths[p], &config);
            if (status == MBL_OK)
                status = mbl_lora_read(lora, paths[p], host);
            mbl_mem_fail_at(0);
            assert_int_equal(mbl_mem_live(), here);
            if (mbl_mem_count() - before < at)
                break;
            failures += status != MBL_OK;
            assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        }
        mbl_fail_quiet(0);
        free(host);
        mbl_lora_free(lora);
    }
    assert_true(failures > 60);
    assert_int_equal(mbl_mem_live(), live);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_velocity_is_that_of_their_loaders),
        cmocka_unit_test(plain_values_are_the_bits_of_the_file),
        cmocka_unit_test(what_peft_would_do_otherwise_is_refused),
        cmocka_unit_test(tensors_that_do_not_belong_are_named),
        cmocka_unit_test(values_that_are_no_numbers_are_named),
        cmocka_unit_test(metadata_is_read_as_the_configuration_is),
        cmocka_unit_test(no_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
