/* src/base: Philox against its published vectors, distributions, memory, durations. */
#include "support.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

#include <string.h>

/* Known answers of Random123 (kat_vectors, philox4x32-10). */
static void philox_known_answers(void **state) {
    (void)state;
    const uint32_t key[3][2] = {{0, 0}, {0xffffffffu, 0xffffffffu}, {0xa4093822u, 0x299f31d0u}};
    const uint32_t ctr[3][4] = {{0, 0, 0, 0},
                                {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu},
                                {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}};
    const uint32_t want[3][4] = {{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u},
                                 {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu},
                                 {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        mbl_philox(key[i], ctr[i], out);
        for (int j = 0; j < 4; j++)
            assert_int_equal(out[j], want[i][j]);
    }
}

static void normal_moments_and_streams(void **state) {
    (void)state;
    enum { N = 100000 };
    static float x[N];
    mbl_rng_t rng = mbl_rng(42, MBL_RNG_NOISE, 3, 7);
    mbl_rng_normal(&rng, x, N);
    double mean = 0, square = 0;
    for (int i = 0; i < N; i++)
        mean += x[i], square += (double)x[i] * x[i];
    assert_near(mean / N, 0, 0.015);
    assert_near(square / N, 1, 0.02);
    float again[2];
    rng = mbl_rng(42, MBL_RNG_NOISE, 3, 7);
    mbl_rng_normal(&rng, again, 2);
    assert_memory_equal(again, x, sizeof again);
    rng = mbl_rng(42, MBL_RNG_NOISE, 4, 7);
    mbl_rng_normal(&rng, again, 2);
    assert_memory_not_equal(again, x, sizeof again);
}

static void permutation_is_one(void **state) {
    (void)state;
    uint32_t p[100], seen[100] = {0};
    mbl_rng_t rng = mbl_rng(1, MBL_RNG_PROMPTS, 0, 0);
    mbl_rng_permutation(&rng, p, 100);
    for (int i = 0; i < 100; i++)
        seen[p[i]]++;
    for (int i = 0; i < 100; i++)
        assert_int_equal(seen[i], 1);
}

/* A block that the kernel zeroes is as zero as others, and in memory at once: an allocation is what fails,
 * not a step much later. */
static void large_blocks_are_zero_and_there(void **state) {
    (void)state;
    enum { BYTES = (64 << 20) + 192 };
    for (int again = 0; again < 2; again++) {
        const size_t before = resident("RssAnon");
        unsigned char *block = mbl_calloc(BYTES / 64, 64);
        assert_non_null(block);
        if (again == 0)
            assert_in_range(resident("RssAnon") - before, BYTES - (1 << 20), 2 * (size_t)BYTES);
        for (size_t i = 0; i < BYTES; i++)
            if (block[i] != 0)
                fail_msg("byte %zu of %d is %d", i, BYTES, block[i]);
        memset(block, 0xff, BYTES);
        mbl_free(block);
    }
}

static void memory_fails_when_asked_to(void **state) {
    (void)state;
    size_t live = mbl_mem_live();
    assert_null(mbl_calloc(SIZE_MAX / 2, 3));
    mbl_mem_fail_at(2);
    char *a = mbl_calloc(1, 10), *b = mbl_calloc(1, 10), *c = mbl_calloc(1, 10);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    mbl_free(a);
    mbl_free(c);
    assert_int_equal(mbl_mem_live(), live);
}

static void arena_counts_then_carves(void **state) {
    (void)state;
    mbl_arena_t count = {NULL, 0, 0};
    assert_null(mbl_arena_take(&count, 3, 5));
    assert_null(mbl_arena_take(&count, 1, 8));
    assert_int_equal(count.used, 72);
    mbl_arena_t arena = {mbl_calloc(1, count.used), count.used, 0};
    assert_non_null(mbl_arena_take(&arena, 3, 5));
    assert_non_null(mbl_arena_take(&arena, 1, 8));
    assert_null(mbl_arena_take(&arena, 1, 1000));
    assert_null(mbl_arena_take(&arena, SIZE_MAX, 2));
    mbl_free(arena.base);
}

static void durations_read_well(void **state) {
    (void)state;
    char text[32];
    assert_string_equal(mbl_duration(12.34, text), "12.3 s");
    assert_string_equal(mbl_duration(200, text), "3 min 20 s");
    assert_string_equal(mbl_duration(3720, text), "1 h 02 min");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),       cmocka_unit_test(normal_moments_and_streams),
        cmocka_unit_test(permutation_is_one),         cmocka_unit_test(large_blocks_are_zero_and_there),
        cmocka_unit_test(memory_fails_when_asked_to), cmocka_unit_test(arena_counts_then_carves),
        cmocka_unit_test(durations_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
