/* Counter-based randomness (Philox4x32-10, Salmon et al., SC 2011). Every number is a function of (seed,
 * purpose, step, sample, position), so results depend neither on the number of ranks or threads nor on the
 * order of calls. */
#ifndef MBL_BASE_RNG_H
#define MBL_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* What a number is for; part of the key. Never renumber: checkpoints and golden data depend on it. */
typedef enum {
    MBL_RNG_INIT = 1,      /* weights */
    MBL_RNG_NOISE = 2,     /* starting noise of a rollout or a sample */
    MBL_RNG_SDE = 3,       /* noise inside a stochastic solver */
    MBL_RNG_PROMPTS = 4,   /* order of prompts */
    MBL_RNG_TIMESTEPS = 5, /* order of a sample's training timesteps */
    MBL_RNG_TRAIN = 6,     /* noise added to x0 in training */
    MBL_RNG_WORLD = 7,     /* the signs world: images and sentences */
    MBL_RNG_GRAM = 8,      /* which micro-batches go into a partial Gram matrix */
    MBL_RNG_EVAL = 9,      /* noise of an evaluation */
    MBL_RNG_STUDY = 10,    /* bootstrap and the like */
    MBL_RNG_KL = 11,       /* which rows the KL term is taken of */
    MBL_RNG_BACKOFF = 12   /* how long a request waits until it is tried again */
} mbl_rng_purpose_t;

/* One block: four words from a key and a counter. The same function runs on every device. */
void mbl_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

/* A stream of numbers; a value, copy it freely. */
typedef struct {
    uint32_t key[2], counter[4], word[4];
    int used; /* words of `word` already given */
} mbl_rng_t;

/* The stream of (seed, purpose, step, sample), at its beginning. Key = (seed_lo, seed_hi ^ purpose *
 * 0x9E3779B9); counter words = (block, sample_lo, sample_hi, step). */
mbl_rng_t mbl_rng(uint64_t seed, mbl_rng_purpose_t purpose, uint32_t step, uint64_t sample);

uint32_t mbl_rng_u32(mbl_rng_t *rng);
/* [0, 1) with 24 bits; (0, 1] is 1 - that. */
float mbl_rng_uniform(mbl_rng_t *rng);
/* [0, n), without bias; n > 0. */
uint32_t mbl_rng_below(mbl_rng_t *rng, uint32_t n);
/* Two standard normals from two words (Box-Muller): the k-th pair of a stream uses words 2k and 2k+1. */
void mbl_rng_normal2(mbl_rng_t *rng, float out[2]);
/* Fills n floats with standard normals (pairs in order; an odd last one drops its partner). */
void mbl_rng_normal(mbl_rng_t *rng, float *out, size_t n);
/* Fisher-Yates permutation of 0..n-1. */
void mbl_rng_permutation(mbl_rng_t *rng, uint32_t *out, uint32_t n);

#endif
