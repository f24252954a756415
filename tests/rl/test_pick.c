/* Which prompts an epoch uses: passes over the set without replacement, split over any number of ranks. */
#include "support.h"

#include "base/share.h"
#include "rl/pick.h"

#include <string.h>

enum { PROMPTS = 7, GROUPS = 5, GROUP_SIZE = 3, PASSES = 10, MAX = 64 * GROUP_SIZE };

/* The prompt of every group of epochs 0.., a whole number of passes. */
static void sequence(uint64_t seed, uint32_t *out) {
    uint32_t scratch[PROMPTS], prompt[GROUPS * GROUP_SIZE];
    int64_t sample[GROUPS * GROUP_SIZE];
    for (uint64_t epoch = 0; epoch < PASSES * PROMPTS / GROUPS; epoch++) {
        mbl_pick(seed, epoch, GROUPS, GROUP_SIZE, PROMPTS, 0, GROUPS * GROUP_SIZE, scratch, prompt, sample);
        for (size_t g = 0; g < GROUPS; g++)
            out[epoch * GROUPS + g] = prompt[g * GROUP_SIZE];
    }
}

static void every_pass_uses_every_prompt_once(void **state) {
    uint32_t order[PASSES * PROMPTS];
    size_t repeated = 0;
    (void)state;
    sequence(3, order);
    for (size_t pass = 0; pass < PASSES; pass++) {
        int used[PROMPTS] = {0};
        for (size_t i = 0; i < PROMPTS; i++) {
            assert_in_range(order[pass * PROMPTS + i], 0, PROMPTS - 1);
            used[order[pass * PROMPTS + i]]++;
        }
        for (size_t i = 0; i < PROMPTS; i++)
            assert_int_equal(used[i], 1);
        repeated += pass > 0 && !memcmp(order, order + pass * PROMPTS, PROMPTS * sizeof *order);
    }
    assert_int_equal(repeated, 0); /* every pass has an order of its own */
}

static void order_depends_on_the_seed_only(void **state) {
    uint32_t a[PASSES * PROMPTS], b[PASSES * PROMPTS], c[PASSES * PROMPTS];
    (void)state;
    sequence(3, a);
    sequence(3, b);
    sequence(4, c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

/* More groups than prompts: an epoch holds whole passes and a part of the next. */
static void one_epoch_may_hold_several_passes(void **state) {
    uint32_t scratch[PROMPTS], prompt[23], order[PASSES * PROMPTS];
    int64_t sample[23];
    (void)state;
    sequence(3, order);
    mbl_pick(3, 1, 23, 1, PROMPTS, 0, 23, scratch, prompt, sample);
    assert_memory_equal(prompt, order + 23, sizeof prompt);
    mbl_pick(3, 5, 4, 1, 1, 0, 4, scratch, prompt, sample);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(prompt[i], 0);
}

/* The ranks' parts, side by side, are what one rank picks, also where they begin and end inside groups. */
static void ranks_concatenate(void **state) {
    static const size_t groups[] = {5, 6, 13, 40};
    uint32_t scratch[PROMPTS], whole[MAX], part[MAX];
    int64_t whole_sample[MAX], part_sample[MAX];
    (void)state;
    for (size_t k = 0; k < sizeof groups / sizeof *groups; k++)
        for (size_t ranks = 1; ranks <= groups[k] * GROUP_SIZE; ranks += 1 + ranks / 5)
            for (uint64_t epoch = 0; epoch < 9; epoch++) {
                size_t all = groups[k] * GROUP_SIZE;
                mbl_pick(11, epoch, groups[k], GROUP_SIZE, PROMPTS, 0, all, scratch, whole, whole_sample);
                for (size_t rank = 0; rank < ranks; rank++) {
                    mbl_share_t own = mbl_share(all, ranks, rank);
                    mbl_pick(11, epoch, groups[k], GROUP_SIZE, PROMPTS, own.first, own.n, scratch,
                             part + own.first, part_sample + own.first);
                }
                assert_memory_equal(part, whole, all * sizeof *part);
                assert_memory_equal(part_sample, whole_sample, all * sizeof *part_sample);
            }
}

static void samples_are_numbered_over_all_ranks(void **state) {
    uint32_t scratch[PROMPTS], prompt[6];
    int64_t sample[6];
    (void)state;
    mbl_pick(11, 2, GROUPS, GROUP_SIZE, PROMPTS, 3 * GROUP_SIZE, 6, scratch, prompt, sample);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(sample[i], 3 * GROUP_SIZE + i);
        assert_int_equal(prompt[i], prompt[i / GROUP_SIZE * GROUP_SIZE]); /* a group has one prompt */
    }
    assert_int_not_equal(prompt[0], prompt[GROUP_SIZE]);
}

enum { SOURCES = 3, EACH = 40, LONG = 48, MOST_RANKS = 2 * LONG };

/* A set of three sources of 5, 20 and 15 prompts, with weights 1, 2 and 0.5. */
static mbl_prompts_t sources_of(mbl_prompt_source_t *sources) {
    static const size_t counts[SOURCES] = {5, 20, 15};
    static const double weights[SOURCES] = {1, 2, 0.5};
    for (size_t s = 0; s < SOURCES; s++)
        sources[s] = (mbl_prompt_source_t){NULL, weights[s], counts[s]};
    return (mbl_prompts_t){.count = EACH, .sources = sources, .n_sources = SOURCES};
}

static size_t source_of(uint32_t prompt) {
    return prompt < 5 ? 0 : prompt < 25 ? 1 : 2;
}

/* Up to every group, in every epoch and over all of them; and each source's prompts are used evenly. */
static void sources_have_their_shares(void **state) {
    mbl_prompt_source_t sources[SOURCES];
    mbl_prompts_t set = sources_of(sources);
    mbl_pick_counts_t counts = {0};
    uint32_t scratch[EACH], prompt[LONG];
    int64_t sample[LONG];
    size_t used[EACH] = {0}, given[SOURCES] = {0}, all = 0;
    (void)state;
    for (uint64_t epoch = 0; epoch < 100; epoch++) {
        size_t now[SOURCES] = {0};
        mbl_pick_sources(3, epoch, LONG, 1, &set, 0, LONG, &counts, scratch, prompt, sample);
        for (size_t g = 0; g < LONG; g++) {
            size_t s = source_of(prompt[g]);
            used[prompt[g]]++;
            given[s]++;
            now[s]++;
            all++;
            for (size_t i = 0; i < SOURCES; i++)
                assert_near((double)given[i], (double)all * sources[i].weight / 3.5, 1);
        }
        for (size_t i = 0; i < SOURCES; i++)
            assert_near((double)now[i], LONG * sources[i].weight / 3.5, 1.5);
    }
    for (size_t i = 1; i < EACH; i++)
        if (source_of((uint32_t)i) == source_of((uint32_t)i - 1))
            assert_in_range(used[i], used[i - 1] - 1, used[i - 1] + 1);
}

/* An epoch is the same whichever came before, and whoever picks which part of it. */
static void sources_do_not_depend_on_ranks_or_resume(void **state) {
    mbl_prompt_source_t sources[SOURCES];
    mbl_prompts_t set = sources_of(sources);
    uint32_t scratch[EACH], whole[2 * LONG], part[2 * LONG];
    int64_t sample[2 * LONG];
    (void)state;
    for (size_t ranks = 1; ranks <= MOST_RANKS; ranks += ranks < 8 ? 1 : 22) {
        mbl_pick_counts_t counts = {0}, of_rank[MOST_RANKS] = {{0}};
        for (uint64_t epoch = 7; epoch < 12; epoch++) {
            mbl_pick_sources(5, epoch, LONG, 2, &set, 0, 2 * LONG, &counts, scratch, whole, sample);
            for (size_t r = 0; r < ranks; r++) {
                mbl_share_t own = mbl_share(2 * LONG, ranks, r);
                mbl_pick_sources(5, epoch, LONG, 2, &set, own.first, own.n, &of_rank[r], scratch,
                                 part + own.first, sample + own.first);
                assert_int_equal(sample[own.first], own.first);
            }
            assert_memory_equal(part, whole, sizeof whole);
        }
        mbl_pick_sources(5, 3, LONG, 2, &set, 0, 2 * LONG, &counts, scratch, whole, sample); /* back */
        mbl_pick_sources(5, 3, LONG, 2, &set, 0, 2 * LONG, &(mbl_pick_counts_t){0}, scratch, part, sample);
        assert_memory_equal(part, whole, sizeof whole);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pass_uses_every_prompt_once),
        cmocka_unit_test(order_depends_on_the_seed_only),
        cmocka_unit_test(one_epoch_may_hold_several_passes),
        cmocka_unit_test(ranks_concatenate),
        cmocka_unit_test(samples_are_numbered_over_all_ranks),
        cmocka_unit_test(sources_have_their_shares),
        cmocka_unit_test(sources_do_not_depend_on_ranks_or_resume),
    };
    return cmocka_run_group_tests_name("pick", tests, NULL, NULL);
}
