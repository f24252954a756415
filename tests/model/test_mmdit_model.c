/* The MM-DiT as an object: finite differences in f64, independence of the batch, repeatability, kinds of
 * tape, save and open, refusals, failing allocations.
 * ctest-isas: avx2 */
#include "mmdit_case.h"

#include "base/json.h"
#include "base/log.h"
#include "model/safetensors.h"

static mbl_ops_t *open_ops(int threads) {
    mbl_ops_t *ops;
    assert_ok(mbl_ops_open("cpu", threads, &ops));
    return ops;
}

/* ---- finite differences ---- */

enum { PROBES = 120 };

static double loss_at(mbl_dit_t *model, const mbl_adapter_t *adapter, mmdit_io_t *io, mbl_tape_t *tape) {
    assert_ok(mbl_dit_forward(model, adapter, io_input(io), tape, &io->v));
    return loss_of(io);
}

/* Moves value i of `values` a little both ways; `apply` hands the values to the model or its adapter. */
typedef struct {
    mbl_dit_t *model;
    mbl_adapter_t *adapter;
    bool weights;
} target_t;

static void apply(const target_t *t, const mbl_tensor_t *values) {
    if (t->weights)
        assert_ok(mbl_dit_set_weights(t->model, values));
    else
        assert_ok(mbl_adapter_set(t->model, t->adapter, values));
}

static void check_differences(const target_t *t, const mbl_tensor_t *values, mmdit_io_t *io, mbl_tape_t *tape,
                              const double *gradient, size_t n) {
    const double step = 3e-5;
    double *v = values->data, mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += gradient[i] * gradient[i] / (double)n;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        size_t i = (size_t)((hashed(hash_name("probe"), probe) + 1) / 2 * (double)n);
        double kept = v[i];
        v[i] = kept + step;
        apply(t, values);
        double up = loss_at(t->model, t->adapter, io, tape);
        v[i] = kept - step;
        apply(t, values);
        double down = loss_at(t->model, t->adapter, io, tape);
        v[i] = kept;
        apply(t, values);
        double scale = fabs(gradient[i]) > sqrt(mean) ? fabs(gradient[i]) : sqrt(mean);
        assert_near((up - down) / (2 * step) / scale, gradient[i] / scale, 1e-6);
    }
}

static void test_finite_differences(void **state) {
    (void)state;
    const mmdit_case_t *c = &mmdit_cases[2];
    mbl_ops_t *ops = open_ops(1);
    mbl_dit_t *model = case_model(ops, MBL_F64, c);
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    mbl_tape_t *tape;
    mmdit_io_t io;
    mbl_tensor_t weights, full, values, sets, ones;
    assert_ok(mbl_lora_new(model, &(mbl_lora_config_t){.rank = 3, .alpha = 5}, &lora));
    case_adapter(model, ops, MBL_F64, lora, &adapter);
    case_io(ops, MBL_F64, c, 2, &io);
    assert_ok(mbl_tape_new(model, lora, MBL_TAPE_FULL, 2, c->height, c->width, c->tokens, &tape));
    size_t n = mbl_dit_weights(model)->dim[0],
           trained = mbl_dit_param(model, mbl_dit_param_count(model) - 1)->offset;
    assert_ok(mbl_tensor_new(ops, MBL_F64, &weights, 1, n));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &full, 1, n));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &values, 1, mbl_lora_size(lora)));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &sets, 2, (size_t)1, mbl_lora_size(lora)));
    assert_ok(mbl_tensor_new(ops, MBL_F32, &ones, 2, (size_t)1, (size_t)2));
    ((float *)ones.data)[0] = ((float *)ones.data)[1] = 1;
    assert_ok(mbl_dit_get_weights(model, &weights));
    assert_ok(mbl_tensor_copy(ops, &values, &adapter.weights));
    loss_at(model, &adapter, &io, tape);
    mbl_gradient_sink_t sink = {.full = &full, .sets = &sets, .coefficient = &ones};
    assert_ok(mbl_dit_backward(model, &adapter, &io.input, tape, &io.dv, &sink));
    check_differences(&(target_t){model, &adapter, true}, &weights, &io, tape, full.data, trained);
    check_differences(&(target_t){model, &adapter, false}, &values, &io, tape, sets.data,
                      mbl_lora_size(lora));
    mbl_tensor_t *all[] = {&weights, &full, &values, &sets, &ones};
    for (size_t i = 0; i < 5; i++)
        mbl_tensor_free(ops, all[i]);
    mbl_tape_free(tape);
    io_free(&io);
    mbl_adapter_free(model, &adapter);
    mbl_lora_free(lora);
    mbl_dit_close(model);
    mbl_ops_close(ops);
}

/* ---- batches, repetition, tapes ---- */

static mbl_tensor_t rows_of(const mbl_tensor_t *t, size_t first, size_t n) {
    return mbl_tensor_rows(t, first, n);
}

/* Every sample alone gives the bits it gives among others, on tapes of any kind and any number of threads. */
static void check_independence(mbl_dtype_t dtype, const mmdit_case_t *c) {
    enum { MANY = 7 };
    mbl_ops_t *ops = open_ops(1), *two = open_ops(2);
    mbl_dit_t *model = case_model(ops, dtype, c), *other = case_model(two, dtype, c);
    mbl_lora_t *lora;
    mbl_adapter_t adapter, adapter2;
    mbl_tape_t *tape, *tape2;
    mmdit_io_t io;
    assert_ok(mbl_lora_new(model, &(mbl_lora_config_t){.rank = 4, .alpha = 8}, &lora));
    case_adapter(model, ops, dtype, lora, &adapter);
    case_adapter(other, two, dtype, lora, &adapter2);
    case_io(ops, dtype, c, MANY, &io);
    assert_ok(mbl_tape_new(model, lora, MBL_TAPE_NONE, MANY + 2, c->height, c->width, c->tokens, &tape));
    assert_ok(mbl_tape_new(other, lora, MBL_TAPE_NONE, MANY, c->height, c->width, c->tokens, &tape2));
    assert_ok(mbl_dit_forward(model, &adapter, io_input(&io), tape, &io.v));
    size_t bytes = mbl_tensor_count(&io.v) * mbl_dtype_size(io.v.dtype);
    char *want = mbl_calloc(bytes, 1);
    memcpy(want, io.v.data, bytes);
    for (size_t n = 1; n < MANY; n += 2)
        for (size_t first = 0; first + n <= MANY; first++) {
            mbl_tensor_t x = rows_of(&io.x, first, n), t = rows_of(&io.t, first, n),
                         v = rows_of(&io.v, first, n);
            mbl_conditions_t conditions = mbl_conditions_rows(&io.conditions, first, n);
            assert_ok(mbl_dit_forward(
                model, &adapter, &(mbl_dit_input_t){.x = &x, .t = &t, .conditions = &conditions}, tape, &v));
            assert_memory_equal(io.v.data, want, bytes);
        }
    memset(io.v.data, 0, bytes);
    assert_ok(mbl_dit_forward(other, &adapter2, io_input(&io), tape2, &io.v));
    assert_memory_equal(io.v.data, want, bytes);
    mbl_free(want);
    mbl_tape_free(tape);
    mbl_tape_free(tape2);
    io_free(&io);
    mbl_adapter_free(model, &adapter);
    mbl_adapter_free(other, &adapter2);
    mbl_lora_free(lora);
    mbl_dit_close(model);
    mbl_dit_close(other);
    mbl_ops_close(ops);
    mbl_ops_close(two);
}

static void test_independence(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        check_independence(MBL_F32, &mmdit_cases[i]);
        check_independence(MBL_BF16, &mmdit_cases[i]);
    }
}

/* The three kinds of tape compute the same; a tape without adapters is smaller and so is one without
 * gradient.
 */
static void test_kinds(void **state) {
    (void)state;
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_ops_t *ops = open_ops(1);
    mbl_dit_t *model = case_model(ops, MBL_F32, c);
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    mmdit_io_t io;
    size_t bytes[3];
    assert_ok(mbl_lora_new(model, &(mbl_lora_config_t){.rank = 4, .alpha = 8}, &lora));
    case_adapter(model, ops, MBL_F32, lora, &adapter);
    case_io(ops, MBL_F32, c, 2, &io);
    size_t n = mbl_tensor_count(&io.v);
    double *want = mbl_calloc(n, sizeof *want);
    for (int kind = MBL_TAPE_NONE; kind <= MBL_TAPE_FULL; kind++) {
        mbl_tape_t *tape;
        assert_ok(mbl_tape_new(model, lora, kind, 2, c->height, c->width, c->tokens, &tape));
        bytes[kind] = mbl_tape_bytes(tape);
        assert_ok(mbl_dit_forward(model, &adapter, io_input(&io), tape, &io.v));
        if (kind == MBL_TAPE_NONE)
            for (size_t i = 0; i < n; i++)
                want[i] = ((float *)io.v.data)[i];
        assert_near(relative_error(io.v.data, MBL_F32, want, n), 0, 1e-6);
        mbl_tape_free(tape);
    }
    assert_true(bytes[MBL_TAPE_NONE] * 2 < bytes[MBL_TAPE_LORA]);
    assert_true(bytes[MBL_TAPE_LORA] < bytes[MBL_TAPE_FULL]);
    mbl_free(want);
    io_free(&io);
    mbl_adapter_free(model, &adapter);
    mbl_lora_free(lora);
    mbl_dit_close(model);
    mbl_ops_close(ops);
}

/* Forward, backward, forward again: the same bits, and no allocation after the tape is made. */
static void test_repetition(void **state) {
    (void)state;
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_ops_t *ops = open_ops(1);
    mbl_dit_t *model = case_model(ops, MBL_F32, c);
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    mmdit_io_t io;
    mbl_tape_t *tape;
    mbl_tensor_t sets[2], coefficient;
    assert_ok(mbl_lora_new(model, &(mbl_lora_config_t){.rank = 4, .alpha = 8}, &lora));
    case_adapter(model, ops, MBL_F32, lora, &adapter);
    case_io(ops, MBL_F32, c, SAMPLES, &io);
    coefficient = hashed_tensor(ops, MBL_F32, "coefficient", 1, 0, 2, (size_t[]){SETS, SAMPLES});
    assert_ok(mbl_tape_new(model, lora, MBL_TAPE_LORA, SAMPLES, c->height, c->width, c->tokens, &tape));
    size_t bytes = mbl_tensor_count(&io.v) * sizeof(float), allocated = 0;
    char *want = mbl_calloc(bytes, 1);
    for (int i = 0; i < 2; i++)
        assert_ok(mbl_tensor_new(ops, MBL_F64, &sets[i], 2, (size_t)SETS, mbl_lora_size(lora)));
    for (int i = 0; i < 2; i++) {
        assert_ok(mbl_dit_forward(model, &adapter, io_input(&io), tape, &io.v));
        assert_ok(mbl_dit_backward(model, &adapter, &io.input, tape, &io.dv,
                                   &(mbl_gradient_sink_t){.sets = &sets[i], .coefficient = &coefficient}));
        if (i == 0) {
            memcpy(want, io.v.data, bytes);
            allocated = mbl_mem_count();
        }
    }
    assert_int_equal(mbl_mem_count(), allocated);
    assert_memory_equal(io.v.data, want, bytes);
    assert_memory_equal(sets[0].data, sets[1].data, mbl_tensor_count(&sets[0]) * sizeof(double));
    for (int i = 0; i < 2; i++)
        mbl_tensor_free(ops, &sets[i]);
    mbl_free(want);
    mbl_tensor_free(ops, &coefficient);
    mbl_tape_free(tape);
    io_free(&io);
    mbl_adapter_free(model, &adapter);
    mbl_lora_free(lora);
    mbl_dit_close(model);
    mbl_ops_close(ops);
}

/* A fresh model: adaLN and output zero, so that it predicts nothing; B of fresh adapters zero. */
static void test_fresh(void **state) {
    (void)state;
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_ops_t *ops = open_ops(1);
    mbl_dit_t *model, *again;
    mbl_lora_t *lora;
    assert_ok(new_model(ops, MBL_F32, &c->config, 3, &model));
    assert_ok(new_model(ops, MBL_F32, &c->config, 3, &again));
    const mbl_tensor_t *w = mbl_dit_weights(model);
    assert_memory_equal(w->data, mbl_dit_weights(again)->data, w->dim[0] * sizeof(float));
    for (size_t p = 0; p < mbl_dit_param_count(model); p++) {
        const mbl_param_t *param = mbl_dit_param(model, p);
        const float *values = (const float *)w->data + param->offset;
        double square = 0, expected = 2.0 / (double)(param->dim[0] + param->count / param->dim[0]);
        for (size_t i = 0; i < param->count; i++)
            square += values[i] * values[i] / (double)param->count;
        if (strstr(param->name, ".linear.") || strstr(param->name, "proj_out") ||
            strstr(param->name, ".bias"))
            assert_near(square, 0, 0);
        else if (param->trained && param->ndim > 1)
            assert_near(square / expected, 1, 0.15);
    }
    assert_ok(mbl_lora_new(model, &(mbl_lora_config_t){.rank = 8, .alpha = 16}, &lora));
    float *values = mbl_calloc(mbl_lora_size(lora), sizeof *values);
    mbl_lora_init(lora, 11, values);
    for (size_t p = 0; p < mbl_lora_param_count(lora); p++) {
        const mbl_param_t *param = mbl_lora_param(lora, p);
        double square = 0;
        for (size_t i = 0; i < param->count; i++)
            square += values[param->offset + i] * values[param->offset + i] / (double)param->count;
        assert_near(square * 64, strstr(param->name, "lora_A") ? 1 : 0, 0.4);
    }
    mbl_free(values);
    mbl_lora_free(lora);
    mbl_dit_close(model);
    mbl_dit_close(again);
    mbl_ops_close(ops);
}

/* ---- folders ---- */

static void save_case(mbl_ops_t *ops, const mmdit_case_t *c, mbl_dtype_t dtype, const char *folder) {
    mbl_dit_t *model = case_model(ops, MBL_F32, c);
    assert_ok(mbl_dit_save(model, mbl_dit_weights(model)->data, dtype, folder));
    mbl_dit_close(model);
}

/* config.json says what the model was made of. */
static void assert_config(const char *folder, const mbl_mmdit_config_t *expected) {
    char path[300];
    json_t *json;
    mbl_mmdit_config_t config;
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_ok(mbl_json_read(path, &json));
    assert_ok(mbl_mmdit_config_parse(path, json, &config));
    assert_memory_equal(&config, expected, sizeof config);
    json_decref(json);
}

static void test_round_trip(void **state) {
    (void)state;
    char folder[256];
    mbl_ops_t *ops = open_ops(1);
    temporary_folder(folder);
    for (int i = 0; i < CASES; i++) {
        mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[i]), *back;
        const mbl_tensor_t *w = mbl_dit_weights(model);
        save_case(ops, &mmdit_cases[i], MBL_F32, folder);
        assert_ok(mbl_dit_open(ops, MBL_F32, folder, &back));
        assert_config(folder, &mmdit_cases[i].config);
        assert_memory_equal(mbl_dit_weights(back)->data, w->data, w->dim[0] * sizeof(float));
        mbl_dit_close(back);
        save_case(ops, &mmdit_cases[i], MBL_BF16, folder);
        assert_ok(mbl_dit_open(ops, MBL_F64, folder, &back));
        for (size_t j = 0; j < w->dim[0]; j++)
            assert_near(((double *)mbl_dit_weights(back)->data)[j],
                        mbl_bf16_to_f32(mbl_bf16_from_f32(((float *)w->data)[j])), 0);
        mbl_dit_close(back);
        mbl_dit_close(model);
    }
    remove_folder(folder);
    mbl_ops_close(ops);
}

/* Replaces `from` by `to` in folder/config.json. */
static void edit_config(const char *folder, const char *from, const char *to) {
    char path[300], out[4096];
    snprintf(path, sizeof path, "%s/config.json", folder);
    char *text = read_whole(path, NULL), *at = strstr(text, from);
    assert_non_null(at);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    write_whole(path, out, strlen(out));
    free(text);
}

static void expect_refusal(mbl_ops_t *ops, const char *folder, const char *status, const char *const *says) {
    mbl_dit_t *model = NULL;
    assert_string_equal(mbl_status_name(mbl_dit_open(ops, MBL_F32, folder, &model)), status);
    assert_null(model);
    for (; *says; says++)
        if (!strstr(mbl_fail_message(), *says))
            fail_msg("\"%s\" does not say \"%s\"", mbl_fail_message(), *says);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *status, *says[5];
    } edits[] = {
        {"\"num_layers\": 3", "\"num_layers\": 0", "ERR_CONFIG", {"config.json", "num_layers", "0"}},
        {"\"num_layers\": 3", "\"num_layers\": \"3\"", "ERR_CONFIG", {"config.json", "num_layers"}},
        {"\"num_layers\": 3",
         "\"num_layers\": 4",
         "ERR_FORMAT",
         {"transformer_blocks.2.norm1_context", "[192,32]"}},
        {"\"rms_norm\"",
         "\"layer_norm\"",
         "ERR_CONFIG",
         {"config.json", "qk_norm", "layer_norm", "rms_norm"}},
        {"\"caption_projection_dim\": 32",
         "\"caption_projection_dim\": 31",
         "ERR_CONFIG",
         {"config.json", "caption_projection_dim", "31", "32"}},
        {"\"joint_attention_dim\": 24",
         "\"joint_attention_dim\": 25",
         "ERR_FORMAT",
         {"context_embedder.weight", "[32,24]", "[32,25]"}},
        {"\"pos_embed_max_size\": 6", "\"pos_embed_max_size\": 3", "ERR_CONFIG", {"pos_embed_max_size", "3"}},
        {"SD3Transformer2DModel",
         "FluxTransformer2DModel",
         "ERR_CONFIG",
         {"_class_name", "Flux", "SD3Trans"}},
        {"\"patch_size\": 2", "\"patch_size\": 3", "ERR_CONFIG", {"sample_size", "8"}},
        {"    0,", "    7,", "ERR_CONFIG", {"dual_attention_layers", "7"}},
        {"{", "[", "ERR_", {"config.json"}},
    };
    char folder[256];
    mbl_ops_t *ops = open_ops(1);
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        temporary_folder(folder);
        save_case(ops, &mmdit_cases[0], MBL_F32, folder);
        edit_config(folder, edits[i].from, edits[i].to);
        if (strcmp(edits[i].status, "ERR_") == 0)
            expect_refusal(ops, folder, "ERR_FORMAT", edits[i].says);
        else
            expect_refusal(ops, folder, edits[i].status, edits[i].says);
        remove_folder(folder);
    }
    temporary_folder(folder);
    expect_refusal(ops, folder, "ERR_IO", (const char *const[]){"config.json", NULL});
    remove_folder(folder);
    mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[1]);
    mbl_lora_t *lora = NULL;
    const mbl_lora_config_t bad = {
        .rank = 4, .alpha = 4, .n_targets = 2, .targets = {"attn.to_q", "attn2.to_q"}};
    assert_string_equal(mbl_status_name(mbl_lora_new(model, &bad, &lora)), "ERR_CONFIG");
    assert_non_null(strstr(mbl_fail_message(), "attn2.to_q"));
    assert_string_equal(mbl_status_name(mbl_lora_new(model, &(mbl_lora_config_t){.alpha = 4}, &lora)),
                        "ERR_CONFIG");
    mbl_dit_close(model);
    mbl_log_set_level(MBL_LOG_INFO);
    mbl_ops_close(ops);
}

/* ---- allocations that fail ---- */

static mbl_status_t build_all(mbl_ops_t *ops, const char *folder) {
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_dit_t *opened = NULL, *fresh = NULL;
    mbl_lora_t *lora = NULL;
    mbl_adapter_t adapter = {0};
    mbl_tape_t *tape = NULL;
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_dit_open(ops, MBL_BF16, folder, &opened), done);
    MBL_TRY_GOTO(new_model(ops, MBL_F32, &c->config, 1, &fresh), done);
    MBL_TRY_GOTO(mbl_lora_new(opened, &(mbl_lora_config_t){.rank = 2, .alpha = 2}, &lora), done);
    MBL_TRY_GOTO(mbl_adapter_new(opened, lora, &adapter), done);
    MBL_TRY_GOTO(mbl_tape_new(opened, lora, MBL_TAPE_LORA, 2, c->height, c->width, c->tokens, &tape), done);
done:
    mbl_tape_free(tape);
    if (lora)
        mbl_adapter_free(opened, &adapter);
    mbl_lora_free(lora);
    mbl_dit_close(fresh);
    mbl_dit_close(opened);
    return status;
}

/* Writing may go on without memory for what only helps (the sync of the folder), never half. */
static void check_save(mbl_ops_t *ops, const char *folder) {
    mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[0]), *back;
    const mbl_tensor_t *w = mbl_dit_weights(model);
    size_t before = mbl_mem_count(), refused = 0;
    assert_ok(mbl_dit_save(model, w->data, MBL_F32, folder));
    size_t count = mbl_mem_count() - before, live = mbl_mem_live();
    for (size_t n = 1; n <= count; n++) {
        mbl_mem_fail_at(n);
        mbl_status_t status = mbl_dit_save(model, w->data, MBL_F32, folder);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        refused += status == MBL_ERR_MEM;
        assert_int_equal(mbl_mem_live(), live);
    }
    assert_true(refused >= 4);
    assert_ok(mbl_dit_open(ops, MBL_F32, folder, &back));
    assert_memory_equal(mbl_dit_weights(back)->data, w->data, w->dim[0] * sizeof(float));
    mbl_dit_close(back);
    mbl_dit_close(model);
}

static void test_failing_allocations(void **state) {
    (void)state;
    char folder[256];
    mbl_ops_t *ops = open_ops(1);
    temporary_folder(folder);
    save_case(ops, &mmdit_cases[0], MBL_F32, folder);
    mbl_log_set_level(MBL_LOG_OFF);
    size_t before = mbl_mem_count();
    assert_ok(build_all(ops, folder));
    size_t count = mbl_mem_count() - before, live = mbl_mem_live();
    for (size_t n = 1; n <= count; n++) {
        mbl_mem_fail_at(n);
        assert_string_equal(mbl_status_name(build_all(ops, folder)), "ERR_MEM");
        mbl_mem_fail_at(0);
        assert_int_equal(mbl_mem_live(), live);
    }
    check_save(ops, folder);
    mbl_log_set_level(MBL_LOG_INFO);
    remove_folder(folder);
    mbl_ops_close(ops);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_independence),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_repetition),
        cmocka_unit_test(test_fresh),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
