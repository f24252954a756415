/* Model folders: weights that config.json does not ask for are named and refused, one of several files is
 * chosen as diffusers and transformers choose, every type of safetensors has its size, and what git-lfs
 * leaves is called that. */
#include "mmdit_case.h"

#include "base/copy.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/safetensors.h"
#include "model/text/clip.h"
#include "model/text/tokenizer.h"

#include <unistd.h>

static mbl_ops_t *ops;
static char folder[256];

static const char *in(const char *name) {
    static char path[8][600];
    static int next;
    char *out = path[next++ % 8];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static const mbl_clip_config_t clip_config = {.vocab_size = 60,
                                              .hidden_size = 16,
                                              .intermediate_size = 32,
                                              .num_hidden_layers = 2,
                                              .num_attention_heads = 2,
                                              .max_position_embeddings = 12,
                                              .projection_dim = 16,
                                              .eos_token_id = 59,
                                              .layer_norm_eps = 1e-5};

/* folder/transformer and folder/text_encoder, whole. */
static int prepare(void **state) {
    (void)state;
    temporary_folder(folder);
    assert_ok(mbl_ops_open("cpu", 1, &ops));
    mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[0]);
    assert_ok(mbl_dit_save(model, model ? mbl_dit_weights(model)->data : NULL, MBL_F32, in("transformer")));
    mbl_dit_close(model);
    assert_ok(mbl_clip_create(&clip_config, 3, false, in("text_encoder")));
    mbl_fail_quiet(1);
    return 0;
}

static int tidy(void **state) {
    (void)state;
    mbl_ops_close(ops);
    remove_folder(folder);
    return 0;
}

/* A fresh copy of folder/NAME as folder/copy. */
static void fresh_copy(const char *name) {
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", in("copy"));
    assert_int_equal(system(command), 0);
    assert_ok(mbl_folder_copy(in(name), in("copy"), NULL));
}

static mbl_status_t open_transformer(void) {
    mbl_dit_t *model = NULL;
    MBL_TRY(mbl_dit_open(ops, MBL_F32, in("copy"), &model));
    mbl_dit_close(model);
    return MBL_OK;
}

static mbl_status_t open_encoder(void) {
    mbl_clip_t *clip = NULL;
    MBL_TRY(mbl_clip_open(ops, MBL_F32, in("copy"), false, &clip));
    mbl_clip_close(clip);
    return MBL_OK;
}

static void refused(mbl_status_t status, const char *part) {
    if (status != MBL_ERR_FORMAT || !strstr(mbl_fail_message(), part) || !strstr(mbl_fail_message(), "copy"))
        fail_msg("%s \"%s\", expected ERR_FORMAT with \"%s\"", mbl_status_name(status), mbl_fail_message(),
                 part);
}

static void set_config(const char *key, json_t *value) {
    json_t *config;
    assert_ok(mbl_json_read(in("copy/config.json"), &config));
    if (value)
        json_object_set_new(config, key, value);
    else
        json_object_del(config, key);
    assert_ok(mbl_json_write(in("copy/config.json"), config));
    json_decref(config);
}

/* Writes folder/copy/TO: the tensors of FROM there, and `more`. */
static void add_tensor(const char *from, const char *to, const mbl_st_tensor_t *more) {
    char path[300];
    mbl_st_t *st;
    snprintf(path, sizeof path, "copy/%s", from);
    assert_ok(mbl_st_open(in(path), &st));
    size_t n = mbl_st_count(st);
    mbl_st_tensor_t *tensors = calloc(n + 1, sizeof *tensors);
    for (size_t i = 0; i < n; i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        tensors[i] = (mbl_st_tensor_t){
            .name = entry->name, .dtype = entry->dtype, .ndim = entry->ndim, .data = entry->data};
        memcpy(tensors[i].dim, entry->dim, sizeof entry->dim);
    }
    if (more)
        tensors[n++] = *more;
    snprintf(path, sizeof path, "copy/%s", to);
    assert_ok(mbl_st_write(in(path), tensors, n, NULL));
    mbl_st_close(st);
    free(tensors);
}

/* ---- tensors that nobody asks for ---- */

static void weights_without_a_use_are_refused(void **state) {
    static const char weights[] = "diffusion_pytorch_model.safetensors";
    static const float numbers[8] = {0};
    (void)state;
    fresh_copy("transformer");
    assert_ok(open_transformer());
    set_config("qk_norm", NULL);
    refused(open_transformer(),
            "copy: tensor transformer_blocks.0.attn.norm_added_k.weight, "
            "transformer_blocks.0.attn.norm_added_q.weight, transformer_blocks.0.attn.norm_k.weight and ");
    refused(open_transformer(), "not asked for by config.json");
    refused(open_transformer(), "look at its qk_norm");
    set_config("qk_norm", json_string("rms_norm"));
    set_config("dual_attention_layers", json_array());
    assert_int_not_equal(open_transformer(), MBL_OK);
    fresh_copy("transformer");
    add_tensor(weights, weights,
               &(mbl_st_tensor_t){"transformer_blocks.9.new.weight", MBL_F32, 1, {8}, numbers});
    refused(open_transformer(), "tensor transformer_blocks.9.new.weight: not asked for");
    fresh_copy("text_encoder");
    assert_ok(open_encoder());
    set_config("num_hidden_layers", json_integer(1));
    refused(open_encoder(), "text_model.encoder.layers.1.layer_norm1.bias, ");
    refused(open_encoder(), "look at its num_hidden_layers");
    fresh_copy("text_encoder");
    add_tensor("model.safetensors", "model.safetensors",
               &(mbl_st_tensor_t){"logit_scale", MBL_F32, 0, {0}, numbers});
    refused(open_encoder(), "tensor logit_scale: not asked for");
}

static void numbers_of_positions_are_ignored(void **state) {
    static const int64_t positions[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    (void)state;
    fresh_copy("text_encoder");
    add_tensor("model.safetensors", "model.safetensors",
               &(mbl_st_tensor_t){"text_model.embeddings.position_ids", MBL_I64, 2, {1, 12}, positions});
    assert_ok(open_encoder());
}

/* ---- several files ---- */

static void write_text(const char *name, const char *text) {
    write_whole(in(name), text, strlen(text));
}

/* An index of one shard for all tensors of folder/copy/SHARD. */
static void write_index(const char *name, const char *shard) {
    char path[300];
    mbl_st_t *st;
    json_t *map = json_object();
    snprintf(path, sizeof path, "copy/%s", shard);
    assert_ok(mbl_st_open(in(path), &st));
    for (size_t i = 0; i < mbl_st_count(st); i++)
        json_object_set_new(map, mbl_st_at(st, i)->name, json_string(shard));
    mbl_st_close(st);
    snprintf(path, sizeof path, "copy/%s", name);
    json_t *index = json_pack("{s:o}", "weight_map", map);
    assert_ok(mbl_json_write(in(path), index));
    json_decref(index);
}

/* What the log says while `open` runs; free it. */
static char *log_of(mbl_status_t (*open)(void)) {
    write_text("log", "");
    assert_ok(mbl_log_open(in("log")));
    assert_ok(open());
    assert_ok(mbl_log_open(NULL));
    return read_whole(in("log"), NULL);
}

static float first_value(const char *name) {
    mbl_st_t *st;
    float value;
    assert_ok(mbl_st_open(in("copy"), &st));
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    assert_non_null(entry);
    memcpy(&value, entry->data, sizeof value);
    mbl_st_close(st);
    return value;
}

/* Turns the first number of a tensor in a file into 77. */
static void mark(const char *file, const char *name) {
    char path[300];
    const float value = 77;
    mbl_st_t *st;
    size_t size;
    snprintf(path, sizeof path, "copy/%s", file);
    char *bytes = read_whole(in(path), &size);
    assert_ok(mbl_st_open(in(path), &st));
    const mbl_st_entry_t *last = mbl_st_find(st, name);
    size_t behind = 0; /* bytes of data from the tensor on */
    for (size_t i = 0; i < mbl_st_count(st); i++)
        if ((const char *)mbl_st_at(st, i)->data >= (const char *)last->data)
            behind += mbl_st_at(st, i)->bytes;
    mbl_st_close(st);
    memcpy(bytes + size - behind, &value, sizeof value);
    write_whole(in(path), bytes, size);
    free(bytes);
}

static void one_file_of_several_is_read_and_said(void **state) {
    static const char bias[] = "proj_out.bias", norm[] = "text_model.final_layer_norm.bias";
    (void)state;
    /* diffusers: the index before the single file */
    fresh_copy("transformer");
    char *log = log_of(open_transformer);
    assert_string_equal(log, "");
    free(log);
    add_tensor("diffusion_pytorch_model.safetensors", "part-1.safetensors", NULL);
    mark("part-1.safetensors", bias);
    write_index("diffusion_pytorch_model.safetensors.index.json", "part-1.safetensors");
    assert_true(first_value(bias) == 77);
    log = log_of(open_transformer);
    assert_non_null(strstr(log, "diffusion_pytorch_model.safetensors.index.json: is read, as diffusers does; "
                                "diffusion_pytorch_model.safetensors beside it is not"));
    free(log);
    /* a file of the other library's name is not what diffusers reads */
    fresh_copy("transformer");
    add_tensor("diffusion_pytorch_model.safetensors", "model.safetensors", NULL);
    mark("model.safetensors", bias);
    assert_true(first_value(bias) != 77);
    log = log_of(open_transformer);
    assert_non_null(strstr(log, "diffusion_pytorch_model.safetensors: is read"));
    free(log);
    /* transformers: the single file before the index */
    fresh_copy("text_encoder");
    add_tensor("model.safetensors", "part-1.safetensors", NULL);
    mark("part-1.safetensors", norm);
    write_index("model.safetensors.index.json", "part-1.safetensors");
    assert_true(first_value(norm) != 77);
    log = log_of(open_encoder);
    assert_non_null(strstr(
        log, "model.safetensors: is read, as diffusers does; model.safetensors.index.json beside it is not"));
    free(log);
    assert_int_equal(unlink(in("copy/model.safetensors")), 0);
    assert_true(first_value(norm) == 77);
}

/* An index of one variant that names a file of the other, either way round. */
static void variants_are_not_mixed(void **state) {
    (void)state;
    fresh_copy("text_encoder");
    add_tensor("model.safetensors", "model.fp16-00001-of-00001.safetensors", NULL);
    add_tensor("model.safetensors", "model-00001-of-00001.safetensors", NULL);
    assert_int_equal(unlink(in("copy/model.safetensors")), 0);
    write_index("model.safetensors.index.json", "model.fp16-00001-of-00001.safetensors");
    assert_int_equal(open_encoder(), MBL_ERR_FORMAT);
    refused(MBL_ERR_FORMAT,
            "model.safetensors.index.json: weight_map: \"model.fp16-00001-of-00001.safetensors\" is "
            "of the variant fp16; expected the files of one variant");
    assert_int_equal(unlink(in("copy/model.safetensors.index.json")), 0);
    static const char *const spellings[] = {"model.safetensors.index.fp16.json",
                                            "model.fp16.safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        write_index(spellings[i], "model-00001-of-00001.safetensors");
        assert_int_equal(open_encoder(), MBL_ERR_FORMAT);
        refused(MBL_ERR_FORMAT, "is not of the variant fp16");
        write_index(spellings[i], "model.fp16-00001-of-00001.safetensors");
        assert_ok(open_encoder());
        char path[64];
        snprintf(path, sizeof path, "copy/%s", spellings[i]);
        assert_int_equal(unlink(in(path)), 0);
    }
}

/* ---- types ---- */

static void every_type_has_its_size(void **state) {
    static const struct {
        const char *type;
        size_t bits;
    } types[] = {{"BOOL", 8},        {"I8", 8},          {"I16", 16},    {"U16", 16},    {"U32", 32},
                 {"U64", 64},        {"C64", 64},        {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
                 {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
    enum { TYPES = sizeof types / sizeof *types };
    mbl_st_t *st;
    float numbers[96];
    size_t at = 0;
    (void)state;
    assert_ok(mbl_st_open(MBL_SOURCE_DIR "/tests/golden/exotic.safetensors", &st));
    assert_int_equal(mbl_st_count(st), TYPES);
    assert_null(mbl_st_metadata(st, "format"));
    for (size_t i = 0; i < TYPES; i++) {
        const mbl_st_entry_t *entry = mbl_st_find(st, types[i].type);
        assert_non_null(entry);
        assert_string_equal(entry->type, types[i].type);
        assert_int_equal(entry->bytes, 12 * types[i].bits / 8);
        for (size_t b = 0; b < entry->bytes; b++) /* the writer counts through all of them */
            assert_int_equal(((const unsigned char *)entry->data)[b], (at + b) % 251);
        at += entry->bytes;
        assert_int_equal(mbl_st_read_f32(st, types[i].type, numbers, entry->bytes), MBL_ERR_FORMAT);
        char part[64];
        snprintf(part, sizeof part, "dtype %s, expected F32, BF16, F16 or F64", types[i].type);
        if (!strstr(mbl_fail_message(), part))
            fail_msg("\"%s\" lacks \"%s\"", mbl_fail_message(), part);
    }
    mbl_st_close(st);
}

static void parts_of_bytes_are_refused(void **state) {
    static const char *const headers[] = {
        "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}",
        "{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[3],\"data_offsets\":[0,3]}}"};
    static const size_t sizes[] = {2, 3};
    char bytes[200];
    mbl_st_t *st;
    (void)state;
    fresh_copy("transformer");
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(headers[i]);
        memset(bytes, 0, sizeof bytes);
        bytes[0] = (char)length;
        memcpy(bytes + 8, headers[i], length);
        write_whole(in("copy/odd.safetensors"), bytes, 8 + length + sizes[i]);
        refused(mbl_st_open(in("copy/odd.safetensors"), &st), "expected whole bytes");
    }
}

/* ---- git-lfs ---- */

static void a_pointer_of_git_lfs_is_called_that(void **state) {
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        "size 4939327872\n";
    mbl_tokenizer_t *tokenizer;
    (void)state;
    fresh_copy("transformer");
    write_text("copy/diffusion_pytorch_model.safetensors", pointer);
    refused(open_transformer(), "diffusion_pytorch_model.safetensors: a pointer of git-lfs, not the file "
                                "itself (of 4939327872 bytes)");
    refused(open_transformer(), "git lfs pull");
    fresh_copy("transformer");
    write_text("copy/config.json", pointer);
    refused(open_transformer(), "config.json: a pointer of git-lfs");
    fresh_copy("transformer");
    add_tensor("diffusion_pytorch_model.safetensors", "part-1.safetensors", NULL);
    write_index("diffusion_pytorch_model.safetensors.index.json", "part-1.safetensors");
    write_text("copy/part-1.safetensors", pointer);
    refused(open_transformer(), "part-1.safetensors: a pointer of git-lfs");
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    for (size_t i = 0; i < 3; i++) {
        char path[64], part[64];
        char command[900];
        snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s' '%s'", in("copy"),
                 MBL_SOURCE_DIR "/deploy/examples/signs-base/tokenizer", in("copy"));
        assert_int_equal(system(command), 0);
        snprintf(path, sizeof path, "copy/%s", files[i]);
        write_text(path, pointer);
        snprintf(part, sizeof part, "%s: a pointer of git-lfs", files[i]);
        refused(mbl_tokenizer_open(in("copy"), &tokenizer), part);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_without_a_use_are_refused),
        cmocka_unit_test(numbers_of_positions_are_ignored),
        cmocka_unit_test(one_file_of_several_is_read_and_said),
        cmocka_unit_test(variants_are_not_mixed),
        cmocka_unit_test(every_type_has_its_size),
        cmocka_unit_test(parts_of_bytes_are_refused),
        cmocka_unit_test(a_pointer_of_git_lfs_is_called_that),
    };
    return cmocka_run_group_tests(tests, prepare, tidy);
}
