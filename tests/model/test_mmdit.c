/* The MM-DiT against diffusers (golden/make_mmdit.py): outputs, gradients of all weights, LoRA gradient sets,
 * in f64 and in f32; bf16 near f32.   ctest-backends: fake cuda */
#include "mmdit_case.h"

#include "model/safetensors.h"

typedef struct {
    mbl_dtype_t dtype;
    double forward, gradient;
} precision_t;
static const precision_t precisions[] = {{MBL_F64, 1e-9, 1e-8}, {MBL_F32, 1e-5, 1e-4}};

static mbl_ops_t *open_ops(void) {
    mbl_ops_t *ops;
    assert_ok(mbl_ops_open(test_backend(), 1, &ops));
    return ops;
}

static mbl_st_t *open_golden(void) {
    mbl_st_t *st;
    assert_ok(mbl_st_open(MBL_SOURCE_DIR "/tests/golden/mmdit.safetensors", &st));
    return st;
}

static void check_output(const mbl_st_t *st, const char *name, const mmdit_io_t *io, double tolerance) {
    size_t n = mbl_tensor_count(&io->v);
    double *want = mbl_calloc(n, sizeof *want);
    assert_ok(mbl_st_read_f64(st, name, want, n));
    void *v = host_of(io->ops, &io->v);
    double error = relative_error(v, io->v.dtype, want, n);
    if (!(error <= tolerance))
        print_error("%s: relative error %.2e\n", name, error);
    assert_near(error, 0, tolerance);
    mbl_free(v);
    mbl_free(want);
}

/* Norm and four random projections of a gradient, relative to its norm (or, for a gradient that is zero or
 * nearly so, to `scale`). */
static void check_projections(const mbl_st_t *st, const char *name, const void *gradient, mbl_dtype_t dtype,
                              size_t n, double scale, double tolerance) {
    double want[5], got[5] = {0};
    assert_ok(mbl_st_read_f64(st, name, want, 5));
    for (size_t i = 0; i < n; i++)
        got[0] += get_value(gradient, dtype, i) * get_value(gradient, dtype, i);
    got[0] = sqrt(got[0]);
    for (int j = 0; j < 4; j++) {
        char projection[32];
        snprintf(projection, sizeof projection, "projection.%d", j);
        uint32_t seed = hash_name(projection);
        for (size_t i = 0; i < n; i++) {
            double h = hashed(seed, i);
            got[j + 1] += h > 0 ? get_value(gradient, dtype, i) : h < 0 ? -get_value(gradient, dtype, i) : 0;
        }
    }
    double norm = want[0] > scale ? want[0] : scale;
    for (int j = 0; j < 5; j++) {
        if (!(fabs(got[j] - want[j]) <= tolerance * norm * (j ? 2 : 1)))
            print_error("%s: projection %d of a gradient of norm %g\n", name, j, want[0]);
        assert_near(got[j], want[j], tolerance * norm * (j ? 2 : 1));
    }
}

static void check_full(const mbl_st_t *st, const mmdit_case_t *c, const precision_t *precision) {
    mbl_ops_t *ops = open_ops();
    mbl_dit_t *model = case_model(ops, precision->dtype, c);
    mmdit_io_t io;
    mbl_tape_t *tape;
    mbl_tensor_t grad;
    char name[192];
    case_io(ops, precision->dtype, c, SAMPLES, &io);
    assert_ok(mbl_tape_new(model, NULL, MBL_TAPE_FULL, SAMPLES + 1, c->height, c->width, c->tokens, &tape));
    assert_ok(mbl_tensor_new(ops, io.v.dtype, &grad, 1, mbl_dit_weights(model)->dim[0]));
    assert_ok(mbl_dit_forward(model, NULL, io_input(&io), tape, &io.v));
    snprintf(name, sizeof name, "%s.v", c->name);
    check_output(st, name, &io, precision->forward);
    mbl_gradient_sink_t sink = {.full = &grad};
    assert_ok(mbl_dit_backward(model, NULL, &io.input, tape, &io.dv, &sink));
    char *gradient = host_of(ops, &grad);
    for (size_t p = 0; p < mbl_dit_param_count(model); p++) {
        const mbl_param_t *param = mbl_dit_param(model, p);
        const char *data = gradient + param->offset * mbl_dtype_size(grad.dtype);
        if (!param->trained)
            continue;
        snprintf(name, sizeof name, "%s.full.%s", c->name, param->name);
        check_projections(st, name, data, grad.dtype, param->count, 0.1, precision->gradient);
    }
    mbl_free(gradient);
    mbl_tensor_free(ops, &grad);
    mbl_tape_free(tape);
    io_free(&io);
    mbl_dit_close(model);
    mbl_ops_close(ops);
}

static void test_full(void **state) {
    (void)state;
    mbl_st_t *st = open_golden();
    for (int i = 0; i < CASES; i++)
        for (int j = 0; j < 2; j++)
            check_full(st, &mmdit_cases[i], &precisions[j]);
    mbl_st_close(st);
}

/* K gradient sets against K backward passes of torch; rows of the sets lie further apart than they are long,
 * and two passes add up. */
static void check_lora(const mbl_st_t *st, const mmdit_case_t *c, const char *key,
                       const mbl_lora_config_t *config, const precision_t *precision, mbl_tape_kind_t kind) {
    mbl_ops_t *ops = open_ops();
    mbl_dit_t *model = case_model(ops, precision->dtype, c);
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    mmdit_io_t io;
    mbl_tape_t *tape;
    mbl_tensor_t room, coefficient;
    char name[192];
    case_io(ops, precision->dtype, c, SAMPLES, &io);
    assert_ok(mbl_lora_new(model, config, &lora));
    case_adapter(model, ops, precision->dtype, lora, &adapter);
    assert_ok(mbl_tape_new(model, lora, kind, SAMPLES, c->height, c->width, c->tokens, &tape));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &room, 2, (size_t)SETS, mbl_lora_size(lora) + 13));
    mbl_tensor_t sets = mbl_tensor_columns(&room, 5, mbl_lora_size(lora));
    coefficient = hashed_tensor(ops, MBL_F32, "coefficient", 1, 0, 2, (size_t[]){SETS, SAMPLES});
    assert_ok(mbl_dit_forward(model, &adapter, io_input(&io), tape, &io.v));
    snprintf(name, sizeof name, "%s.v", key);
    check_output(st, name, &io, precision->forward);
    mbl_gradient_sink_t sink = {.sets = &sets, .coefficient = &coefficient};
    assert_ok(mbl_dit_backward(model, &adapter, &io.input, tape, &io.dv, &sink));
    assert_ok(mbl_dit_backward(model, &adapter, &io.input, tape, &io.dv, &sink));
    double *twice = host_of(ops, &room);
    for (size_t i = 0; i < mbl_tensor_count(&room); i++)
        twice[i] /= 2;
    for (size_t k = 0; k < SETS; k++)
        for (size_t p = 0; p < mbl_lora_param_count(lora); p++) {
            const mbl_param_t *param = mbl_lora_param(lora, p);
            const double *data = twice + 5 + k * sets.stride[0] + param->offset;
            snprintf(name, sizeof name, "%s.%zu.%s", key, k, param->name);
            check_projections(st, name, data, MBL_F64, param->count, 0.1, precision->gradient);
        }
    mbl_free(twice);
    mbl_tensor_free(ops, &room);
    mbl_tensor_free(ops, &coefficient);
    mbl_tape_free(tape);
    mbl_adapter_free(model, &adapter);
    mbl_lora_free(lora);
    io_free(&io);
    mbl_dit_close(model);
    mbl_ops_close(ops);
}

static void test_lora(void **state) {
    (void)state;
    mbl_st_t *st = open_golden();
    const mbl_lora_config_t all = {.rank = 4, .alpha = 6};
    for (int i = 0; i < CASES; i++)
        for (int j = 0; j < 2; j++) {
            char key[32];
            snprintf(key, sizeof key, "%s.lora", mmdit_cases[i].name);
            check_lora(st, &mmdit_cases[i], key, &all, &precisions[j], MBL_TAPE_LORA);
        }
    mbl_st_close(st);
}

static void test_lora_elsewhere(void **state) {
    (void)state;
    mbl_st_t *st = open_golden();
    const mbl_lora_config_t more = {.rank = 4,
                                    .alpha = 6,
                                    .n_targets = 6,
                                    .targets = {"attn.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj",
                                                "ff.net.2", "ff_context.net.2"}};
    for (int j = 0; j < 2; j++) {
        check_lora(st, &mmdit_cases[0], "dual.more", &more, &precisions[j], MBL_TAPE_LORA);
        check_lora(st, &mmdit_cases[0], "dual.more", &more, &precisions[j], MBL_TAPE_FULL);
    }
    mbl_st_close(st);
}

static void test_bf16(void **state) {
    (void)state;
    mbl_st_t *st = open_golden();
    for (int i = 0; i < CASES; i++) {
        mbl_ops_t *ops = open_ops();
        mbl_dit_t *model = case_model(ops, MBL_BF16, &mmdit_cases[i]);
        mmdit_io_t io;
        mbl_tape_t *tape;
        char name[32];
        case_io(ops, MBL_BF16, &mmdit_cases[i], SAMPLES, &io);
        assert_ok(mbl_tape_new(model, NULL, MBL_TAPE_NONE, SAMPLES, mmdit_cases[i].height,
                               mmdit_cases[i].width, mmdit_cases[i].tokens, &tape));
        assert_ok(mbl_dit_forward(model, NULL, io_input(&io), tape, &io.v));
        snprintf(name, sizeof name, "%s.v", mmdit_cases[i].name);
        check_output(st, name, &io, 2e-2);
        mbl_tape_free(tape);
        io_free(&io);
        mbl_dit_close(model);
        mbl_ops_close(ops);
    }
    mbl_st_close(st);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_lora),
        cmocka_unit_test(test_lora_elsewhere),
        cmocka_unit_test(test_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
