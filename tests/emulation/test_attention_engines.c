/* Which engine attention takes, and why not the one before it; that does not depend on the batch. */
#include "support.h"

#include "gpu/attention_engines.h"

#include <string.h>

static mbl_tensor_t heads(mbl_dtype_t dtype, size_t samples, size_t tokens, size_t d) {
    return mbl_tensor_of(NULL, dtype, MBL_DEVICE, 4, samples, (size_t)2, tokens, d);
}

static void every_call_has_one(void **state) {
    static const mbl_tensor_t bias = {.ndim = 2};
    static const struct {
        mbl_dtype_t dtype;
        size_t d;
        const mbl_tensor_t *bias;
        double scale;
        const char *engine, *why;
    } cases[] = {
        {MBL_BF16, 64, NULL, 0.125, "mma", NULL},      {MBL_BF16, 128, NULL, 1, "mma", NULL},
        {MBL_BF16, 40, NULL, 1, "mma", NULL},          {MBL_BF16, 129, NULL, 1, "plain", "up to 128"},
        {MBL_F32, 64, NULL, 1, "plain", "bf16 alone"}, {MBL_F64, 64, NULL, 1, "plain", "bf16 alone"},
        {MBL_BF16, 64, &bias, 1, "plain", "no bias"},  {MBL_BF16, 64, NULL, -1, "plain", "above 0"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t samples = 1; samples <= 9; samples += 8)
            for (size_t tokens = 1; tokens <= 1229; tokens += 1228) {
                const mbl_tensor_t q = heads(cases[i].dtype, samples, tokens, cases[i].d);
                const mbl_cuda_attention_engine_t *engine =
                    mbl_cuda_attention_engine(&q, cases[i].bias, cases[i].scale);
                const char *why = mbl_cuda_attention_engine_at(0)->why_not(&q, cases[i].bias, cases[i].scale);
                assert_string_equal(engine->name, cases[i].engine);
                assert_int_equal(why != NULL, cases[i].why != NULL);
                assert_true(!why || strstr(why, cases[i].why));
            }
}

static void names_are_of_their_own(void **state) {
    size_t n = 0;
    (void)state;
    for (; mbl_cuda_attention_engine_at(n); n++)
        for (size_t i = 0; i < n; i++)
            assert_string_not_equal(mbl_cuda_attention_engine_at(i)->name,
                                    mbl_cuda_attention_engine_at(n)->name);
    assert_int_equal(n, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call_has_one),
                                       cmocka_unit_test(names_are_of_their_own)};
    return cmocka_run_group_tests_name("attention engines", tests, NULL, NULL);
}
