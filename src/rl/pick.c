/* Which prompts an epoch uses. */
#include "rl/pick.h"

#include "base/rng.h"

void mbl_pick(uint64_t seed, uint64_t epoch, size_t groups, size_t group_size, size_t n_prompts,
              size_t first_group, size_t n, uint32_t *scratch, uint32_t *prompt, int64_t *sample) {
    uint64_t have = UINT64_MAX; /* the pass whose order is in scratch */
    for (size_t g = 0; g < n / group_size; g++) {
        uint64_t position = epoch * groups + first_group + g, pass = position / n_prompts;
        if (pass != have) {
            mbl_rng_t rng = mbl_rng(seed, MBL_RNG_PROMPTS, 0, pass);
            mbl_rng_permutation(&rng, scratch, (uint32_t)n_prompts);
            have = pass;
        }
        for (size_t j = 0; j < group_size; j++) {
            prompt[g * group_size + j] = scratch[position % n_prompts];
            sample[g * group_size + j] = (int64_t)((first_group + g) * group_size + j);
        }
    }
}
