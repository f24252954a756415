/* The rows of a partial Gram matrix. */
#include "support.h"

#include "rl/gram_part.h"

#include <string.h>

/* As many rows as asked for, spread over the chunks, of this slice only, the same for any number of ranks and
 * other ones in another step. */
static void part_of_the_gram_matrix(void **state) {
    enum { SAMPLES = 40, SIZE = 4, SLOTS = 6, SPLIT = 12 };
    int64_t sample[SAMPLES];
    uint8_t whole[SLOTS * SAMPLES], two[2][SLOTS * SAMPLES], other[SLOTS * SAMPLES];
    mbl_batch_t batch = {.n = SAMPLES, .n_global = SAMPLES, .group_size = SIZE, .sample = sample};
    mbl_gram_part_t options = {
        .fraction = 0.3, .micro_batch = 9, .timesteps = SLOTS, .slice = 1, .slices = 2, .seed = 3, .step = 8};
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = (int64_t)i;
    /* chunks of 2 groups (8 samples), 5 chunks, 3 timesteps: 4.5 of 15 units */
    double share = mbl_gram_part(&options, &batch, whole);
    assert_near(share, 5.0 / 15, 1e-12);
    for (size_t chunk = 0; chunk < 5; chunk++) {
        size_t rows = 0;
        for (size_t slot = 0; slot < SLOTS; slot++)
            for (size_t i = 8 * chunk; i < 8 * chunk + 8; i++) {
                rows += whole[slot * SAMPLES + i] == MBL_PART_GRAM;
                assert_true(slot % 2 == 1 || whole[slot * SAMPLES + i] == MBL_PART_REST);
                assert_int_equal(whole[slot * SAMPLES + i], whole[slot * SAMPLES + 8 * chunk]);
            }
        assert_int_equal(rows, 8);
    }
    for (size_t rank = 0; rank < 2; rank++) { /* 3 groups and 7: chunk 1 lies on both */
        mbl_batch_t own = batch;
        own.sample = sample + rank * SPLIT;
        own.n = rank ? SAMPLES - SPLIT : SPLIT;
        assert_near(mbl_gram_part(&options, &own, two[rank]), share, 0);
        for (size_t slot = 0; slot < SLOTS; slot++)
            for (size_t i = 0; i < own.n; i++)
                assert_int_equal(two[rank][slot * own.n + i], whole[slot * SAMPLES + rank * SPLIT + i]);
    }
    options.halves = true; /* the same rows; 2 or 3 of the 5 units in either half */
    assert_near(mbl_gram_part(&options, &batch, other), share, 0);
    size_t rows[3] = {0};
    for (size_t i = 0; i < sizeof whole; i++) {
        assert_int_equal(other[i] == MBL_PART_REST, whole[i] == MBL_PART_REST);
        rows[other[i]]++;
    }
    assert_int_equal(rows[MBL_PART_GRAM], 24);
    assert_int_equal(rows[MBL_PART_HALF], 16);
    options.halves = false;
    options.step++;
    mbl_gram_part(&options, &batch, other);
    assert_memory_not_equal(other, whole, sizeof whole);
    options.fraction = 0.01;
    assert_near(mbl_gram_part(&options, &batch, other), 1.0 / 30, 1e-12); /* one group */
    options.fraction = 1;
    assert_near(mbl_gram_part(&options, &batch, other), 1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(part_of_the_gram_matrix),
    };
    return cmocka_run_group_tests_name("gram_part", tests, NULL, NULL);
}
