/* src/model/dit: families by the class of their configuration, the list of linears against the parameters,
 * blocks of one kind, and adapters laid out by that list alone. */
#include "mmdit_case.h"
#include "ops_case.h"

#include "base/log.h"
#include "model/lora.h"

static const mbl_param_t *param_of(const mbl_dit_t *model, const char *name) {
    for (size_t i = 0; i < mbl_dit_param_count(model); i++)
        if (strcmp(mbl_dit_param(model, i)->name, name) == 0)
            return mbl_dit_param(model, i);
    return NULL;
}

static void linears_are_the_parameters(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[i]);
        size_t n = mbl_dit_linear_count(model), listed = 0, group = 0, end = 0;
        for (size_t l = 0; l < n; l++) {
            const mbl_dit_linear_t *linear = mbl_dit_linear(model, l);
            char name[128];
            snprintf(name, sizeof name, "%s.weight", linear->name);
            const mbl_param_t *param = param_of(model, name);
            if (!param || param->dim[0] != linear->out || param->dim[1] != linear->in ||
                param->offset != linear->weight)
                fail_msg("%s: %zu x %zu at %zu is no parameter", name, linear->out, linear->in,
                         linear->weight);
            assert_true(linear->of >= 1 && linear->of <= MBL_DIT_GROUP && linear->at < linear->of);
            assert_int_equal(linear->group, linear->at ? group : l ? group + 1 : 0);
            if (linear->at)
                assert_int_equal(linear->weight, end); /* side by side */
            group = linear->group;
            end = linear->weight + linear->in * linear->out;
            assert_true(linear->block < mbl_dit_sizes(model)->blocks);
        }
        assert_null(mbl_dit_linear(model, n));
        for (size_t p = 0; p < mbl_dit_param_count(model); p++) {
            const mbl_param_t *param = mbl_dit_param(model, p);
            listed += param->ndim == 2 && strncmp(param->name, "transformer_blocks.", 19) == 0 &&
                      !strstr(param->name, ".linear.");
        }
        assert_int_equal(n, listed);
        mbl_dit_close(model);
    }
}

/* Every linear by its own name: A of its input and B of its output, all A first, in the order of the list. */
static void adapters_follow_the_list(void **state) {
    (void)state;
    mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[0]);
    mbl_lora_config_t config = {.rank = 2,
                                .alpha = 4,
                                .n_targets = 3,
                                .targets = {"to_k", "ff_context.net.2", "transformer_blocks.1.attn.to_v"}};
    mbl_lora_t *lora;
    assert_ok(mbl_lora_new(model, &config, &lora));
    size_t expected = 0, at = 0;
    for (size_t l = 0; l < mbl_dit_linear_count(model); l++) {
        const mbl_dit_linear_t *linear = mbl_dit_linear(model, l);
        const char *kind = linear->name + linear->kind;
        if (strcmp(kind, "attn.to_k") != 0 && strcmp(kind, "attn2.to_k") != 0 &&
            strcmp(kind, "ff_context.net.2") != 0 && strcmp(linear->name, config.targets[2]) != 0)
            continue;
        mbl_lora_pair_t pair = mbl_lora_pair(lora, expected++);
        char name[128];
        assert_string_equal(pair.linear->name, linear->name);
        snprintf(name, sizeof name, "%s.lora_A.weight", linear->name);
        assert_string_equal(pair.a->name, name);
        assert_int_equal(pair.a->dim[1], linear->in);
        assert_int_equal(pair.b->dim[0], linear->out);
        assert_int_equal(pair.a->offset, at);
        at += pair.a->count;
    }
    assert_int_equal(expected, mbl_lora_pair_count(lora));
    assert_int_equal(expected, 3 + 2 + 2 + 1); /* attn, attn2, ff_context (the last block has none), one */
    for (size_t i = 0; i < expected; i++) {
        assert_int_equal(mbl_lora_pair(lora, i).b->offset, at);
        at += mbl_lora_pair(lora, i).b->count;
    }
    assert_int_equal(at, mbl_lora_size(lora));
    mbl_lora_free(lora);
    config.n_targets = 1;
    snprintf(config.targets[0], sizeof config.targets[0], "attn.to_x");
    assert_int_equal(mbl_lora_new(model, &config, &lora), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "attn.to_x"));
    assert_non_null(
        strstr(mbl_fail_message(), "attn.to_q, attn.to_k, attn.to_v, attn.to_out.0, ff.net.0.proj"));
    mbl_dit_close(model);
}

/* Refused with the class that was found, and those that are known. */
static void refuse(const char *text, const char *says) {
    mbl_dit_sizes_t sizes;
    json_t *config = json_loads(text, 0, NULL);
    assert_int_equal(mbl_dit_config_sizes("some/config.json", config, &sizes), MBL_ERR_CONFIG);
    if (!strstr(mbl_fail_message(), says) || !strstr(mbl_fail_message(), "some/config.json: _class_name") ||
        !strstr(mbl_fail_message(), "\"SD3Transformer2DModel\""))
        fail_msg("\"%s\" does not say \"%s\"", mbl_fail_message(), says);
    json_decref(config);
}

static void families_are_found_by_class(void **state) {
    (void)state;
    mbl_dit_sizes_t sizes;
    json_t *config = mbl_mmdit_config_json(&mmdit_cases[2].config);
    assert_ok(mbl_dit_config_sizes("case", config, &sizes));
    assert_int_equal(sizes.channels, 3);
    assert_int_equal(sizes.out_channels, 5);
    assert_int_equal(sizes.side, 16);
    assert_int_equal(sizes.tokens, 64);
    assert_int_equal(sizes.context_width, 24);
    assert_int_equal(sizes.pooled_width, 20);
    assert_int_equal(sizes.blocks, 2);
    assert_int_equal(sizes.width, 32);
    assert_int_equal(sizes.heads, 4);
    json_object_del(config, "_class_name"); /* then it is of the first family */
    assert_ok(mbl_dit_config_sizes("case", config, &sizes));
    json_decref(config);
    mbl_log_set_level(MBL_LOG_ERROR);
    refuse("{\"_class_name\": \"FluxTransformer2DModel\"}", "FluxTransformer2DModel");
    refuse("{\"_class_name\": 3}", "3");
    refuse("{\"_class_name\": null}", "null");
    mbl_log_set_level(MBL_LOG_INFO);
}

static void blocks_are_of_kinds(void **state) {
    (void)state;
    json_t *config = mbl_mmdit_config_json(&mmdit_cases[0].config);
    size_t kinds = 0;
    for (; mbl_dit_block_kind(config, kinds); kinds++) {
        json_t *some;
        mbl_dit_t *model;
        size_t second[2] = {0, 0}; /* linears of the attention of two block counts */
        for (size_t blocks = 2; blocks <= 3; blocks++) {
            assert_ok(mbl_dit_config_of_kind(config, kinds, blocks, &some));
            assert_ok(mbl_dit_blank(ops, MBL_F32, some, &model));
            assert_int_equal(mbl_dit_sizes(model)->blocks, blocks);
            second[blocks - 2] = mbl_dit_linear_count(model);
            mbl_dit_close(model);
            json_decref(some);
        }
        assert_int_equal(second[1] - second[0], kinds == 0 ? 16 : 12); /* attn2: four more */
    }
    assert_int_equal(kinds, 2);
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears_are_the_parameters), cmocka_unit_test(adapters_follow_the_list),
        cmocka_unit_test(families_are_found_by_class), cmocka_unit_test(blocks_are_of_kinds)};
    return cmocka_run_group_tests(tests, open_ops, close_ops);
}
