/* src/model/lora_file: names and shapes as diffusers and peft save them (golden/make_lora.py), values back
 * as they went, a merged model with the velocity of base and adapter. With a folder as argument it writes
 * what tests/parity/lora.py loads. */
#include "mmdit_case.h"

#include "base/copy.h"
#include "base/file.h"
#include "base/json.h"
#include "model/lora_file.h"
#include "model/safetensors.h"

#include <sys/stat.h>

enum { RANK = 4 };
static const double alpha = 6;

typedef struct {
    mbl_ops_t *ops;
    mbl_dit_t *model;
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    mmdit_io_t io;
    float *values; /* of the adapter */
    char folder[256];
} fixture_t;

static void open_fixture(fixture_t *w, const char *folder) {
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_lora_config_t config = {.rank = RANK, .alpha = alpha};
    memset(w, 0, sizeof *w);
    if (folder)
        snprintf(w->folder, sizeof w->folder, "%s", folder);
    else
        temporary_folder(w->folder);
    assert_ok(mbl_ops_open("cpu", 1, &w->ops));
    w->model = case_model(w->ops, MBL_F32, c);
    assert_ok(mbl_lora_new(w->model, &config, &w->lora));
    case_adapter(w->model, w->ops, MBL_F32, w->lora, &w->adapter);
    w->values = mbl_calloc(mbl_lora_size(w->lora), sizeof *w->values);
    assert_ok(mbl_tensor_download(w->ops, &w->adapter.weights, w->values));
    case_io(w->ops, MBL_F32, c, SAMPLES, &w->io);
}

static void close_fixture(fixture_t *w, bool remove) {
    io_free(&w->io);
    mbl_free(w->values);
    mbl_adapter_free(w->model, &w->adapter);
    mbl_lora_free(w->lora);
    mbl_dit_close(w->model);
    mbl_ops_close(w->ops);
    if (remove)
        remove_folder(w->folder);
}

static const char *in(const fixture_t *w, const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", w->folder, name);
    return out;
}

/* The velocity of `model` with an adapter (or NULL), [SAMPLES, C, H, W]. */
static float *velocity(fixture_t *w, mbl_dit_t *model, const mbl_adapter_t *adapter) {
    size_t n = mbl_tensor_count(&w->io.v);
    const mmdit_case_t *c = &mmdit_cases[0];
    float *out = calloc(n, sizeof *out);
    mbl_tape_t *tape;
    assert_ok(mbl_tape_new(model, w->lora, MBL_TAPE_NONE, SAMPLES, c->height, c->width, c->tokens, &tape));
    assert_ok(mbl_dit_forward(model, adapter, io_input(&w->io), tape, &w->io.v));
    mbl_tape_free(tape);
    memcpy(out, w->io.v.data, n * sizeof *out);
    return out;
}

static float *merged_weights(fixture_t *w, size_t *n) {
    mbl_tensor_t flat;
    *n = mbl_dit_weights(w->model)->dim[0];
    float *weights = mbl_calloc(*n, sizeof *weights);
    assert_ok(mbl_tensor_new(w->ops, MBL_F32, &flat, 1, *n));
    assert_ok(mbl_dit_get_weights(w->model, &flat));
    assert_ok(mbl_tensor_download(w->ops, &flat, weights));
    mbl_tensor_free(w->ops, &flat);
    assert_ok(mbl_lora_merge(w->lora, w->values, weights));
    return weights;
}

static void check_names(const char *kind, const char *path) {
    json_t *golden, *names;
    mbl_st_t *st;
    const char *name;
    json_t *shape;
    assert_ok(mbl_json_read(MBL_SOURCE_DIR "/tests/golden/lora.json", &golden));
    assert_ok(mbl_st_open(path, &st));
    names = json_object_get(golden, kind);
    assert_int_equal(mbl_st_count(st), json_object_size(names));
    json_object_foreach(names, name, shape) {
        const mbl_st_entry_t *entry = mbl_st_find(st, name);
        if (!entry)
            fail_msg("%s: no tensor %s", path, name);
        assert_int_equal(entry->ndim, 2);
        for (size_t i = 0; i < 2; i++)
            assert_int_equal(entry->dim[i], json_integer_value(json_array_get(shape, i)));
        assert_string_equal(entry->type, "F32");
    }
    mbl_st_close(st);
    json_decref(golden);
}

static void names_are_those_of_diffusers_and_peft(void **state) {
    fixture_t w;
    (void)state;
    open_fixture(&w, NULL);
    assert_ok(mbl_lora_write(w.lora, w.values, in(&w, "a.safetensors")));
    assert_ok(mbl_lora_write_peft(w.lora, w.values, "some/base", in(&w, "peft")));
    check_names("diffusers", in(&w, "a.safetensors"));
    check_names("peft", in(&w, "peft/adapter_model.safetensors"));
    json_t *config;
    assert_ok(mbl_json_read(in(&w, "peft/adapter_config.json"), &config));
    assert_string_equal(json_string_value(json_object_get(config, "peft_type")), "LORA");
    assert_int_equal(json_integer_value(json_object_get(config, "r")), RANK);
    assert_near(json_number_value(json_object_get(config, "lora_alpha")), alpha, 0);
    assert_int_equal(json_array_size(json_object_get(config, "target_modules")), 8);
    json_decref(config);
    close_fixture(&w, true);
}

static void values_come_back(void **state) {
    fixture_t w;
    (void)state;
    open_fixture(&w, NULL);
    size_t n = mbl_lora_size(w.lora);
    float *back = calloc(n, sizeof *back);
    assert_ok(mbl_lora_write(w.lora, w.values, in(&w, "a.safetensors")));
    assert_ok(mbl_lora_write_peft(w.lora, w.values, "some/base", in(&w, "peft")));
    assert_ok(mbl_lora_read(w.lora, in(&w, "peft"), back));
    assert_memory_equal(back, w.values, n * sizeof *back);
    assert_ok(mbl_lora_read(w.lora, in(&w, "a.safetensors"), back));
    assert_near(relative_error_f32(back, w.values, n), 0, 1e-7);
    mbl_lora_config_t config;
    assert_ok(mbl_lora_read_config(w.model, in(&w, "peft"), &config));
    assert_int_equal(config.rank, RANK);
    assert_near(config.alpha, alpha, 0);
    assert_int_equal(config.n_targets, 8);
    assert_ok(mbl_lora_read_config(w.model, in(&w, "a.safetensors"), &config));
    assert_int_equal(config.rank, RANK);
    assert_near(config.alpha, RANK, 0); /* the scale is in B */
    mbl_lora_t *found;
    assert_ok(mbl_lora_new(w.model, &config, &found));
    assert_int_equal(mbl_lora_size(found), n);
    mbl_lora_free(found);
    free(back);
    close_fixture(&w, true);
}

static void a_merged_model_moves_alike(void **state) {
    fixture_t w;
    size_t n;
    mbl_dit_t *merged;
    (void)state;
    open_fixture(&w, NULL);
    float *weights = merged_weights(&w, &n), *want = velocity(&w, w.model, &w.adapter);
    float *base = velocity(&w, w.model, NULL);
    assert_ok(mbl_dit_save(w.model, weights, MBL_F32, in(&w, "merged")));
    assert_ok(mbl_dit_open(w.ops, MBL_F32, in(&w, "merged"), &merged));
    float *got = velocity(&w, merged, NULL);
    n = mbl_tensor_count(&w.io.v);
    assert_near(relative_error_f32(got, want, n), 0, 1e-5);
    assert_true(relative_error_f32(base, want, n) > 0.05);
    free(want);
    free(base);
    free(got);
    mbl_free(weights);
    mbl_dit_close(merged);
    close_fixture(&w, true);
}

static void other_files_are_refused(void **state) {
    fixture_t w;
    mbl_lora_config_t config;
    static const float numbers[32];
    (void)state;
    open_fixture(&w, NULL);
    float *back = calloc(mbl_lora_size(w.lora), sizeof *back);
    mbl_st_tensor_t odd[] = {{"transformer_blocks.0.attn.to_q.lora_A.weight", MBL_F32, 2, {4, 8}, numbers},
                             {"transformer_blocks.0.attn.to_q.lora_B.weight", MBL_F32, 2, {8, 4}, numbers},
                             {"text_encoder.lora_A.weight", MBL_F32, 2, {4, 8}, numbers}};
    const char *path = in(&w, "odd.safetensors");
    assert_ok(mbl_st_write(path, odd, 2, NULL));
    assert_ok(mbl_lora_read_config(w.model, path, &config));
    assert_int_equal(mbl_lora_read(w.lora, path, back), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "attn.to_q.lora_A.weight: the model has no linear"));
    assert_ok(mbl_st_write(path, odd, 3, NULL));
    assert_int_equal(mbl_lora_read_config(w.model, path, &config), MBL_ERR_UNSUPPORTED);
    assert_non_null(strstr(mbl_fail_message(), odd[2].name));
    assert_ok(mbl_st_write(path, NULL, 0, NULL));
    assert_int_equal(mbl_lora_read_config(w.model, path, &config), MBL_ERR_FORMAT);
    assert_int_equal(mbl_lora_read_config(w.model, in(&w, "none"), &config), MBL_ERR_IO);
    free(back);
    close_fixture(&w, true);
}

static void folders_are_copied(void **state) {
    char folder[256], path[4][400];
    size_t size;
    (void)state;
    temporary_folder(folder);
    static const char *const names[] = {"from", "from/deep", "from/deep/a", "from/left"};
    for (int i = 0; i < 4; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", folder, names[i]);
    assert_ok(mbl_folder_make(path[1]));
    assert_ok(mbl_folder_make(path[3]));
    write_whole(path[2], "content", 7);
    snprintf(path[1], sizeof path[1], "%s/to", folder);
    assert_ok(mbl_folder_copy(path[0], path[1], "left"));
    snprintf(path[2], sizeof path[2], "%s/to/deep/a", folder);
    char *text = read_whole(path[2], &size);
    assert_string_equal(text, "content");
    free(text);
    snprintf(path[2], sizeof path[2], "%s/to/left", folder);
    assert_false(mbl_folder_exists(path[2]));
    assert_int_equal(mbl_folder_copy(path[2], path[1], NULL), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "to/left: cannot be listed"));
    remove_folder(folder);
}

static void no_memory_is_survived(void **state) {
    fixture_t w;
    (void)state;
    open_fixture(&w, NULL);
    float *back = calloc(mbl_lora_size(w.lora), sizeof *back);
    size_t live = mbl_mem_live(), failures = 0;
    for (size_t at = 1;; at++) {
        mbl_lora_config_t config;
        size_t before = mbl_mem_count();
        mbl_fail_quiet(1);
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_lora_write_peft(w.lora, w.values, "base", in(&w, "peft"));
        if (status == MBL_OK)
            status = mbl_lora_write(w.lora, w.values, in(&w, "a.safetensors"));
        if (status == MBL_OK)
            status = mbl_lora_read_config(w.model, in(&w, "peft"), &config);
        if (status == MBL_OK)
            status = mbl_lora_read(w.lora, in(&w, "peft"), back);
        mbl_mem_fail_at(0);
        mbl_fail_quiet(0);
        assert_int_equal(mbl_mem_live(), live);
        if (mbl_mem_count() - before < at)
            break;
        failures += status != MBL_OK; /* a folder that is not synced for want of memory does no harm */
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
    }
    assert_true(failures > 30);
    free(back);
    close_fixture(&w, true);
}

static mbl_st_tensor_t tensor_of(const char *name, const mbl_tensor_t *t, const void *data) {
    mbl_st_tensor_t out = {.name = name, .dtype = MBL_F32, .ndim = t->ndim, .data = data ? data : t->data};
    for (int i = 0; i < t->ndim; i++)
        out.dim[i] = t->dim[i];
    return out;
}

static int write_for_parity(const char *folder) {
    fixture_t w;
    size_t n;
    open_fixture(&w, folder);
    float *weights = merged_weights(&w, &n), *base = velocity(&w, w.model, NULL);
    float *adapted = velocity(&w, w.model, &w.adapter), *plain = mbl_calloc(n, sizeof *plain);
    mbl_tensor_t flat = mbl_tensor_of(plain, MBL_F32, w.io.v.space, 1, n);
    assert_ok(mbl_dit_get_weights(w.model, &flat));
    assert_ok(mbl_folder_make(in(&w, "base")));
    assert_ok(mbl_folder_make(in(&w, "merged")));
    assert_ok(mbl_dit_save(w.model, plain, MBL_F32, in(&w, "base/transformer")));
    assert_ok(mbl_dit_save(w.model, weights, MBL_F32, in(&w, "merged/transformer")));
    assert_ok(mbl_lora_write(w.lora, w.values, in(&w, "pytorch_lora_weights.safetensors")));
    assert_ok(mbl_lora_write_peft(w.lora, w.values, "base", in(&w, "peft")));
    mbl_st_tensor_t all[] = {tensor_of("x", &w.io.x, NULL),
                             tensor_of("t", &w.io.t, NULL),
                             tensor_of("context", &w.io.conditions.context, NULL),
                             tensor_of("pooled", &w.io.conditions.pooled, NULL),
                             tensor_of("base", &w.io.v, base),
                             tensor_of("adapted", &w.io.v, adapted)};
    assert_ok(mbl_st_write(in(&w, "case.safetensors"), all, sizeof all / sizeof *all, NULL));
    free(base);
    free(adapted);
    mbl_free(plain);
    mbl_free(weights);
    close_fixture(&w, false);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_diffusers_and_peft),
        cmocka_unit_test(values_come_back),
        cmocka_unit_test(a_merged_model_moves_alike),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(folders_are_copied),
        cmocka_unit_test(no_memory_is_survived),
    };
    if (argc == 2)
        return write_for_parity(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
