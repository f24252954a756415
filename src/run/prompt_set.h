/* A prompt set of a run: its prompts, what the model gets of them (once they are encoded), and its identity,
 * which checkpoints keep.
 */
#ifndef MBL_RUN_PROMPT_SET_H
#define MBL_RUN_PROMPT_SET_H

#include "config/config.h"
#include "data/prompts.h"
#include "io/checkpoint.h"
#include "model/embeds.h"

typedef struct {
    mbl_prompts_t prompts;
    const char **texts; /* of the prompts */
    mbl_embeds_t *embeds;
    mbl_prompt_key_t *keys;      /* of those that a cache has; or NULL */
    char digest[MBL_SHA256_HEX]; /* of mbl_prompts_digest */
} mbl_prompt_set_t;

/* Loads a split of the configured prompts (0 train, 1 test). Free with mbl_prompts_free. */
mbl_status_t mbl_prompt_set_load(const mbl_config_t *config, int split, mbl_prompts_t *out);
/* The same with its identity; to be encoded (run/prompt_encode.h). Free with mbl_prompt_set_free, before the
 * encoders. */
mbl_status_t mbl_prompt_set_take(const mbl_config_t *config, const mbl_encoder_t *encoder, int split,
                                 mbl_prompt_set_t *out);
/* The negative prompt of evaluations as a set of one, to be encoded with the others; of none where they are
 * without guidance. */
mbl_status_t mbl_prompt_set_negative(const mbl_config_t *config, const mbl_encoder_t *encoder,
                                     mbl_prompt_set_t *out);
/* A split, encoded by this rank alone. */
mbl_status_t mbl_prompt_set_open(const mbl_config_t *config, const mbl_encoder_t *encoder, int split,
                                 mbl_prompt_set_t *out);
/* The same for the first prompts of a file, at most `most` of the *exist that it has. */
mbl_status_t mbl_prompt_set_read(const mbl_config_t *config, const char *path, size_t most,
                                 const mbl_encoder_t *encoder, size_t *exist, mbl_prompt_set_t *out);
void mbl_prompt_set_free(mbl_prompt_set_t *set);

/* The attribute "prompts" of a checkpoint, one JSON object: source, and of train and test the file, count and
 * digest. Free with mbl_free. */
mbl_status_t mbl_prompt_sets_describe(const mbl_config_t *config, const mbl_prompt_set_t *train,
                                      const mbl_prompt_set_t *test, char **out);
/* Whether prompts from files are those that the checkpoint at `path` was made with. ERR_CONFIG names counts
 * and digests of sets that are others, which `accept` turns into warnings. Of a checkpoint from before they
 * were kept, the count alone is known. */
mbl_status_t mbl_prompt_sets_check(const mbl_config_t *config, const mbl_prompt_set_t *train,
                                   const mbl_prompt_set_t *test, const mbl_ckpt_t *ckpt, const char *path,
                                   bool accept);

#endif
