/* src/plan/parts: the published encoders have as many weights as their files. */
#include "support.h"

#include "plan/parts.h"

static void clips(void **state) {
    (void)state;
    mbl_clip_config_t c = {.vocab_size = 49408,
                           .hidden_size = 768,
                           .intermediate_size = 3072,
                           .num_hidden_layers = 12,
                           .max_position_embeddings = 77,
                           .projection_dim = 768};
    assert_int_equal(mbl_plan_clip(&c).all, 123650304);
    c.hidden_size = c.projection_dim = 1280;
    c.intermediate_size = 5120;
    c.num_hidden_layers = 32;
    assert_int_equal(mbl_plan_clip(&c).all, 694659840);
    assert_int_equal(mbl_plan_clip(&c).layer, (49408 + 77) * 1280);
}

static void t5_xxl(void **state) {
    (void)state;
    const mbl_t5_config_t c = {.vocab_size = 32128,
                               .d_model = 4096,
                               .d_kv = 64,
                               .d_ff = 10240,
                               .num_layers = 24,
                               .num_heads = 64,
                               .relative_attention_num_buckets = 32};
    assert_true(mbl_plan_t5(&c).all == 4762310656);
    assert_int_equal(mbl_plan_t5(&c).layer, 4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096 + 32 * 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(clips), cmocka_unit_test(t5_xxl)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
