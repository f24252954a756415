/* Which prompts an epoch uses. */
#include "rl/pick.h"

#include "base/rng.h"

#include <string.h>

void mbl_pick(uint64_t seed, uint64_t epoch, size_t groups, size_t group_size, size_t n_prompts, size_t first,
              size_t n, uint32_t *scratch, uint32_t *prompt, int64_t *sample) {
    uint64_t have = UINT64_MAX; /* the pass whose order is in scratch */
    for (size_t i = 0; i < n; i++) {
        uint64_t position = epoch * groups + (first + i) / group_size, pass = position / n_prompts;
        if (pass != have) {
            mbl_rng_t rng = mbl_rng(seed, MBL_RNG_PROMPTS, 0, pass);
            mbl_rng_permutation(&rng, scratch, (uint32_t)n_prompts);
            have = pass;
        }
        prompt[i] = scratch[position % n_prompts];
        sample[i] = (int64_t)(first + i);
    }
}

/* The source of the group at counts->position, which then has been used: the one that is furthest behind its
 * share, the first of equals. */
static size_t next_source(const mbl_prompts_t *prompts, double total, mbl_pick_counts_t *counts) {
    size_t best = 0;
    double most = -1e300;
    for (size_t s = 0; s < prompts->n_sources; s++) {
        double behind =
            (double)(counts->position + 1) * prompts->sources[s].weight / total - (double)counts->used[s];
        if (behind > most) {
            most = behind;
            best = s;
        }
    }
    counts->position++;
    counts->used[best]++;
    return best;
}

void mbl_pick_sources(uint64_t seed, uint64_t epoch, size_t groups, size_t group_size,
                      const mbl_prompts_t *prompts, size_t first, size_t n, mbl_pick_counts_t *counts,
                      uint32_t *scratch, uint32_t *prompt, int64_t *sample) {
    uint64_t have[MBL_PROMPT_SOURCES]; /* the pass whose order is in a source's part of scratch */
    size_t start[MBL_PROMPT_SOURCES] = {0};
    uint64_t begin = epoch * groups + first / group_size;
    uint32_t picked = 0;
    double total = 0;
    for (size_t s = 0; s < prompts->n_sources; s++) {
        have[s] = UINT64_MAX;
        total += prompts->sources[s].weight;
        start[s] = s ? start[s - 1] + prompts->sources[s - 1].count : 0;
    }
    if (counts->position > begin)
        memset(counts, 0, sizeof *counts);
    while (counts->position < begin)
        next_source(prompts, total, counts);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || (first + i) % group_size == 0) {
            size_t s = next_source(prompts, total, counts), size = prompts->sources[s].count;
            uint64_t at = counts->used[s] - 1, pass = at / size;
            if (pass != have[s]) {
                mbl_rng_t rng = mbl_rng(seed, MBL_RNG_PROMPTS, (uint32_t)s, pass);
                mbl_rng_permutation(&rng, scratch + start[s], (uint32_t)size);
                have[s] = pass;
            }
            picked = (uint32_t)start[s] + scratch[start[s] + at % size];
        }
        prompt[i] = picked;
        sample[i] = (int64_t)(first + i);
    }
}
