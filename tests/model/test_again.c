/* Activation checkpointing: velocities and gradients are the same to the bit however many blocks are made
 * again in the backward pass, in less memory. ctest-backends: fake check cuda */
#include "mmdit_case.h"

#include "model/lora.h"

typedef struct {
    void *v, *gradient;
    size_t v_bytes, gradient_bytes, tape_bytes;
} result_t;

typedef struct {
    mbl_ops_t *ops;
    mbl_dit_t *model;
    const mmdit_case_t *c;
    mbl_lora_t *lora; /* NULL: all weights' gradient */
    mbl_adapter_t adapter;
    mbl_dtype_t dtype;
} setting_t;

static mbl_tensor_t room_of(const setting_t *s) {
    mbl_tensor_t room;
    if (s->lora)
        assert_ok(mbl_tensor_new(s->ops, MBL_F64, &room, 2, (size_t)SETS, mbl_lora_size(s->lora)));
    else
        assert_ok(
            mbl_tensor_new(s->ops, mbl_dtype_stat(s->dtype), &room, 1, mbl_dit_weights(s->model)->dim[0]));
    return room;
}

/* One forward pass, and two backward passes of it, as training has them. */
static result_t run(const setting_t *s, size_t again) {
    result_t result;
    mmdit_io_t io;
    mbl_tape_t *tape;
    mbl_tape_shape_t shape = {
        s->lora ? MBL_TAPE_LORA : MBL_TAPE_FULL, SAMPLES, s->c->height, s->c->width, s->c->tokens, again};
    case_io(s->ops, s->dtype, s->c, SAMPLES, &io);
    mbl_tensor_t room = room_of(s);
    mbl_tensor_t coefficient =
        hashed_tensor(s->ops, MBL_F32, "coefficient", 1, 0, 2, (size_t[]){SETS, SAMPLES});
    const mbl_gradient_sink_t sink = {.sets = s->lora ? &room : NULL,
                                      .coefficient = s->lora ? &coefficient : NULL,
                                      .full = s->lora ? NULL : &room};
    const mbl_adapter_t *adapter = s->lora ? &s->adapter : NULL;
    assert_ok(mbl_tape_new_of(s->model, s->lora, &shape, &tape));
    assert_ok(mbl_tape_count(s->model, s->lora, &shape, &result.tape_bytes));
    assert_int_equal(mbl_tape_bytes(tape), result.tape_bytes);
    assert_ok(mbl_dit_forward(s->model, adapter, io_input(&io), tape, &io.v));
    assert_ok(mbl_dit_backward(s->model, adapter, &io.input, tape, &io.dv, &sink));
    assert_ok(mbl_dit_backward(s->model, adapter, &io.input, tape, &io.dv, &sink));
    result.v = host_of(s->ops, &io.v);
    result.v_bytes = mbl_tensor_count(&io.v) * mbl_dtype_size(io.v.dtype);
    result.gradient = host_of(s->ops, &room);
    result.gradient_bytes = mbl_tensor_count(&room) * mbl_dtype_size(room.dtype);
    mbl_tensor_free(s->ops, &coefficient);
    mbl_tensor_free(s->ops, &room);
    mbl_tape_free(tape);
    io_free(&io);
    return result;
}

static void forget(result_t *result) {
    mbl_free(result->v);
    mbl_free(result->gradient);
}

static bool is_zero(const result_t *result) {
    for (size_t i = 0; i < result->gradient_bytes; i++)
        if (((const char *)result->gradient)[i])
            return false;
    return true;
}

/* On a GPU, which may be an emulated one, one block and all of them. */
static void check(const setting_t *s) {
    const size_t layers = s->c->config.num_layers;
    const bool few = strcmp(test_backend(), "cuda") == 0;
    result_t want = run(s, 0);
    size_t before = want.tape_bytes;
    assert_false(is_zero(&want));
    for (size_t again = 1; again <= layers + 1; again++) {
        if (few && again != 1 && again != layers)
            continue;
        result_t got = run(s, again);
        assert_memory_equal(got.v, want.v, want.v_bytes);
        assert_memory_equal(got.gradient, want.gradient, want.gradient_bytes);
        if (again == 2 || again == 3)
            assert_true(again > layers ? got.tape_bytes == before : got.tape_bytes < before);
        before = got.tape_bytes;
        forget(&got);
    }
    forget(&want);
}

static void check_case(const mmdit_case_t *c, mbl_dtype_t dtype, const mbl_lora_config_t *config) {
    setting_t s = {.c = c, .dtype = dtype};
    assert_ok(mbl_ops_open(test_backend(), 1, &s.ops));
    s.model = case_model(s.ops, dtype, c);
    if (config) {
        assert_ok(mbl_lora_new(s.model, config, &s.lora));
        case_adapter(s.model, s.ops, dtype, s.lora, &s.adapter);
    }
    check(&s);
    if (config)
        mbl_adapter_free(s.model, &s.adapter);
    mbl_lora_free(s.lora);
    mbl_dit_close(s.model);
    mbl_ops_close(s.ops);
}

static const mbl_dtype_t types[] = {MBL_F32, MBL_BF16};

static void adapters_of_attention(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int j = 0; j < 2; j++)
            check_case(&mmdit_cases[i], types[j], &(mbl_lora_config_t){.rank = 4, .alpha = 6});
}

/* Sites that differ from block to block, and inputs of the second product of the feed-forward net. */
static void adapters_elsewhere(void **state) {
    (void)state;
    const mbl_lora_config_t more = {.rank = 4,
                                    .alpha = 6,
                                    .n_targets = 6,
                                    .targets = {"attn.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj",
                                                "1.ff.net.2", "ff_context.net.2"}};
    const mbl_lora_config_t late = {
        .rank = 4, .alpha = 6, .n_targets = 2, .targets = {"1.attn.to_q", "1.ff.net.2"}};
    for (int j = 0; j < 2; j++) {
        check_case(&mmdit_cases[0], types[j], &more);
        check_case(&mmdit_cases[0], types[j], &late);
    }
}

static void all_weights(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int j = 0; j < 2; j++)
            check_case(&mmdit_cases[i], types[j], NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(adapters_of_attention),
                                       cmocka_unit_test(adapters_elsewhere), cmocka_unit_test(all_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
