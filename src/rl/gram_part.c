/* The rows of a partial Gram matrix, and of a partial KL term. */
#include "rl/gram_part.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { LEAST_UNITS = 4 };

static size_t chunks_of(const mbl_batch_t *batch, size_t chunk) {
    return (batch->n_global + chunk - 1) / chunk;
}

static size_t chunk_size(const mbl_gram_part_t *options, const mbl_batch_t *batch, size_t slots) {
    size_t groups = options->micro_batch / batch->group_size;
    for (; groups > 1; groups--) {
        size_t chunks = chunks_of(batch, groups * batch->group_size);
        bool enough = options->fraction * (double)(slots * chunks) >= LEAST_UNITS;
        if (enough && (!options->halves || chunks >= LEAST_UNITS))
            break;
    }
    return (groups > 1 ? groups : 1) * batch->group_size;
}

/* The samples of a chunk that are on this rank, at one position of their timestep orders. */
static void choose(const mbl_batch_t *batch, size_t first, size_t chunk, uint8_t name, uint8_t *part) {
    for (size_t i = 0; i < batch->n; i++)
        if ((size_t)batch->sample[i] >= first && (size_t)batch->sample[i] < first + chunk)
            part[i] = name;
}

/* The names of the chosen rows into part_of. Returns the share of the rows; *odds of any one to be chosen. */
static double choose_units(const mbl_gram_part_t *options, mbl_rng_purpose_t purpose,
                           const mbl_batch_t *batch, uint8_t *part_of, double *odds) {
    uint32_t order[MBL_SAMPLER_MAX_STEPS];
    size_t slots = (options->timesteps - options->slice + options->slices - 1) / options->slices, rows = 0;
    size_t chunk = chunk_size(options, batch, slots), chunks = chunks_of(batch, chunk);
    double wanted = round(options->fraction * (double)(slots * chunks));
    size_t units = wanted < 1 ? 1 : (size_t)wanted, more = units % chunks;
    mbl_rng_t rng = mbl_rng(options->seed, purpose, options->step, options->slice);
    memset(part_of, MBL_PART_REST, options->timesteps * batch->n);
    *odds = (double)units / (double)(slots * chunks);
    for (size_t j = 0; j < chunks; j++) {
        size_t first = j * chunk, left = batch->n_global - first;
        uint8_t name = options->halves && j % 2 ? MBL_PART_HALF : MBL_PART_GRAM;
        bool one_more = mbl_rng_below(&rng, (uint32_t)(chunks - j)) < more;
        size_t take = units / chunks + one_more;
        more -= one_more;
        mbl_rng_permutation(&rng, order, (uint32_t)slots);
        for (size_t s = 0; s < take; s++) {
            size_t slot = options->slice + order[s] * options->slices;
            choose(batch, first, chunk, name, part_of + slot * batch->n);
        }
        rows += take * (left < chunk ? left : chunk);
    }
    return (double)rows / (double)(slots * batch->n_global);
}

double mbl_gram_part(const mbl_gram_part_t *options, const mbl_batch_t *batch, uint8_t *part_of) {
    double odds;
    return choose_units(options, MBL_RNG_GRAM, batch, part_of, &odds);
}

double mbl_kl_part(const mbl_gram_part_t *options, const mbl_batch_t *batch, uint8_t *rows) {
    double odds;
    choose_units(options, MBL_RNG_KL, batch, rows, &odds);
    for (size_t i = 0; i < options->timesteps * batch->n; i++)
        rows[i] = rows[i] != MBL_PART_REST;
    return 1 / odds;
}
