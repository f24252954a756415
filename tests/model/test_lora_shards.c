/* src/model/lora_shards: whole matrices in one shard each, hardly any room lost, and adapters with holes that
 * move the model and get gradients as those without. */
#include "mmdit_case.h"
#include "ops_case.h"

#include "base/json.h"
#include "model/lora.h"
#include "ops/cost_model.h"

static const mbl_lora_config_t config = {
    .rank = 3, .alpha = 6, .n_targets = 3, .targets = {"to_q", "to_v", "ff.net.2"}};

/* Every matrix within one shard; shards in order, disjoint, all numbers in one. */
static void check_shards(const mbl_lora_t *lora, size_t ranks) {
    size_t at = 0, count = mbl_lora_room(lora) / ranks;
    assert_int_equal(mbl_lora_ranks(lora), ranks);
    assert_int_equal(count * ranks, mbl_lora_room(lora));
    for (size_t r = 0; r < ranks; r++) {
        size_t first, last;
        mbl_lora_range(lora, r, &first, &last);
        assert_int_equal(first, at);
        assert_true(last - first <= count);
        for (size_t p = 0; p < mbl_lora_param_count(lora); p++) {
            const mbl_param_t *param = mbl_lora_param(lora, p);
            bool begins = param->offset >= first && param->offset < last;
            bool ends = param->offset + param->count > first && param->offset + param->count <= last;
            if (begins != ends)
                fail_msg("%s is cut by shard %zu of %zu", param->name, r, ranks);
        }
        at = last;
    }
    assert_int_equal(at, mbl_lora_size(lora));
}

static void matrices_stay_whole(void **state) {
    (void)state;
    mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[0]);
    for (size_t ranks = 1; ranks <= 70; ranks++) { /* more than there are matrices */
        mbl_lora_t *lora;
        assert_ok(mbl_lora_new_sharded(model, &config, ranks, &lora));
        check_shards(lora, ranks);
        size_t size = mbl_lora_size(lora), room = mbl_lora_room(lora), other = 0;
        float *vector = mbl_calloc(room, sizeof *vector);
        for (size_t i = 0; i < room; i++)
            vector[i] = i < size ? (float)(i + 1) : -1;
        mbl_lora_spread(lora, vector);
        for (size_t i = 0; i < room; i++)
            other += vector[i] != 0;
        assert_int_equal(other, size); /* holes are zero */
        mbl_lora_pack(lora, vector);
        for (size_t i = 0; i < size; i++)
            assert_true(vector[i] == (float)(i + 1));
        mbl_free(vector);
        mbl_lora_free(lora);
    }
    mbl_dit_close(model);
}

/* Stable Diffusion 3.5 Medium, rank 32 on its 191 sites: what the longest shard has more than the mean. */
static void little_is_lost(void **state) {
    (void)state;
    static const struct {
        size_t ranks;
        double most; /* 382 matrices of one size: ceil(382 / ranks) / (382 / ranks) */
    } cases[] = {{2, 1}, {8, 48 / (382 / 8.0)}, {64, 6 / (382 / 64.0)}, {100, 4 / 3.82}};
    mbl_ops_t *counting;
    mbl_dit_t *model;
    json_t *json;
    assert_ok(mbl_cost_model_open(&counting));
    assert_ok(mbl_dit_config_read(MBL_SOURCE_DIR "/deploy/examples/sd3.5-medium.json", &json));
    assert_ok(mbl_dit_blank(counting, MBL_BF16, json, &model));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_lora_t *lora;
        assert_ok(mbl_lora_new_sharded(model, &(mbl_lora_config_t){.rank = 32, .alpha = 64}, cases[i].ranks,
                                       &lora));
        assert_int_equal(mbl_lora_pair_count(lora), 191);
        double ratio = (double)mbl_lora_room(lora) / (double)mbl_lora_size(lora);
        print_message("%zu ranks: the longest shard is %.4f of the mean\n", cases[i].ranks, ratio);
        assert_near(ratio, cases[i].most, 1e-9);
        mbl_lora_free(lora);
    }
    mbl_dit_close(model);
    json_decref(json);
    mbl_ops_close(counting);
}

/* The velocity and the gradients of SETS sets with an adapter whose numbers, packed, are always the same. */
static void run(mbl_dit_t *model, size_t ranks, mbl_tape_kind_t kind, bool merged, double *v,
                float *gradient) {
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_lora_t *lora;
    mbl_adapter_t adapter, in_weights = {0};
    mbl_tape_t *tape;
    mbl_tensor_t values, sets, coefficient;
    mmdit_io_t io;
    case_io(ops, MBL_F64, c, SAMPLES, &io);
    assert_ok(mbl_lora_new_sharded(model, &config, ranks, &lora));
    size_t size = mbl_lora_size(lora), room = mbl_lora_room(lora);
    float *host = mbl_calloc(room, sizeof *host), numbers[SETS * SAMPLES];
    for (size_t i = 0; i < size; i++)
        host[i] = (float)(0.5 * hashed(5, i));
    mbl_lora_spread(lora, host);
    assert_ok(mbl_tensor_new(ops, MBL_F32, &values, 1, room));
    assert_ok(mbl_tensor_upload(ops, &values, host));
    assert_ok(mbl_adapter_new(model, lora, &adapter));
    assert_ok(mbl_adapter_set(model, &adapter, &values));
    assert_ok(mbl_tape_new(model, lora, kind, SAMPLES, c->height, c->width, c->tokens, &tape));
    if (merged) {
        assert_ok(mbl_adapter_merged_new(model, &adapter, &in_weights));
        assert_ok(mbl_adapter_merge(model, &in_weights));
    }
    assert_ok(mbl_dit_forward(model, merged ? &in_weights : &adapter, io_input(&io), tape, &io.v));
    memcpy(v, io.v.data, mbl_tensor_count(&io.v) * sizeof *v);
    if (kind == MBL_TAPE_LORA) {
        for (size_t i = 0; i < SETS * SAMPLES; i++)
            numbers[i] = (float)hashed(9, i);
        assert_ok(mbl_tensor_new(ops, MBL_F64, &sets, 2, (size_t)SETS, room));
        assert_ok(mbl_tensor_new(ops, MBL_F32, &coefficient, 2, (size_t)SETS, (size_t)SAMPLES));
        assert_ok(mbl_tensor_upload(ops, &coefficient, numbers));
        assert_ok(mbl_dit_backward(model, &adapter, io_input(&io), tape, &io.dv,
                                   &(mbl_gradient_sink_t){.sets = &sets, .coefficient = &coefficient}));
        for (size_t k = 0; k < SETS; k++) {
            for (size_t i = 0; i < room; i++)
                host[i] = (float)((const double *)sets.data)[k * room + i];
            mbl_lora_pack(lora, host);
            memcpy(gradient + k * size, host, size * sizeof *host);
        }
        mbl_tensor_free(ops, &sets);
        mbl_tensor_free(ops, &coefficient);
    }
    mbl_adapter_free(model, &in_weights);
    mbl_adapter_free(model, &adapter);
    mbl_tape_free(tape);
    mbl_tensor_free(ops, &values);
    mbl_free(host);
    mbl_lora_free(lora);
    io_free(&io);
}

static void holes_change_nothing(void **state) {
    (void)state;
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_dit_t *model = case_model(ops, MBL_F64, c);
    mbl_lora_t *lora;
    assert_ok(mbl_lora_new(model, &config, &lora));
    const size_t size = mbl_lora_size(lora), n = SAMPLES * c->config.out_channels * c->height * c->width;
    mbl_lora_free(lora);
    double *v[3];
    float *gradient[2];
    for (int i = 0; i < 3; i++)
        v[i] = mbl_calloc(n, sizeof *v[i]);
    for (int i = 0; i < 2; i++)
        gradient[i] = mbl_calloc(SETS * size, sizeof *gradient[i]);
    run(model, 1, MBL_TAPE_LORA, false, v[0], gradient[0]);
    for (size_t ranks = 2; ranks <= 40; ranks += 3) { /* cuts in groups of q and v, and beside them */
        run(model, ranks, MBL_TAPE_LORA, false, v[1], gradient[1]);
        run(model, ranks, MBL_TAPE_NONE, true, v[2], NULL);
        assert_near(relative_error_f64(v[1], v[0], n), 0, 1e-12);
        assert_near(relative_error_f64(v[2], v[0], n), 0, 1e-12);
        assert_near(relative_error_f32(gradient[1], gradient[0], SETS * size), 0, 1e-6);
    }
    for (int i = 0; i < 3; i++)
        mbl_free(v[i]);
    for (int i = 0; i < 2; i++)
        mbl_free(gradient[i]);
    mbl_dit_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matrices_stay_whole),
                                       cmocka_unit_test(little_is_lost),
                                       cmocka_unit_test(holes_change_nothing)};
    return cmocka_run_group_tests(tests, open_ops, close_ops);
}
