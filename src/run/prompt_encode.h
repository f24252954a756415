/* Encoding the prompts of a run: what the cache lacks, each rank its share, then all ranks read them there;
 * or, without a cache, all of them into the memory of every rank. */
#ifndef MBL_RUN_PROMPT_ENCODE_H
#define MBL_RUN_PROMPT_ENCODE_H

#include "comm/comm.h"
#include "run/prompt_set.h"

typedef struct {
    const mbl_config_t *config;
    mbl_comm_t *comm;
    const mbl_encoder_t *encoder;
    bool ahead; /* for marble encode: into a cache in any case, and what it holds is read and checked */
} mbl_prompt_encode_t;

typedef struct {
    size_t prompts, encoded, damaged; /* different ones in the sets; of which were encoded now, the second
                                         because their records were damaged */
    uint64_t bytes;                   /* of all records of the sets */
    double seconds;
} mbl_prompt_encoded_t;

/* Sets of mbl_prompt_set_take, the same on every rank. *cache is what they read from (NULL: none), to be
 * closed after the sets. Takes the text encoders off the device at the end. report NULL: not wanted. ERR_IO
 * says what to do about a disk that is full. Collective. */
mbl_status_t mbl_prompt_sets_encode(const mbl_prompt_encode_t *encode, mbl_prompt_set_t *const *sets,
                                    size_t n_sets, mbl_prompt_cache_t **cache, mbl_prompt_encoded_t *report);
/* The same of one set, all on this rank and into its memory. Local. */
mbl_status_t mbl_prompt_set_encode_alone(const mbl_encoder_t *encoder, mbl_prompt_set_t *set);

#endif
