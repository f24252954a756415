/* A prompt set of a run: its prompts, what the model gets of them, and its identity, which checkpoints keep.
 */
#ifndef MBL_RUN_PROMPT_SET_H
#define MBL_RUN_PROMPT_SET_H

#include "config/config.h"
#include "data/prompts.h"
#include "io/checkpoint.h"
#include "model/pipeline.h"

typedef struct {
    mbl_prompts_t prompts;
    mbl_conditions_t conditions;
    char digest[MBL_SHA256_HEX]; /* of mbl_prompts_digest */
} mbl_prompt_set_t;

/* Loads a split of the configured prompts (0 train, 1 test), without conditions. Free with mbl_prompts_free.
 */
mbl_status_t mbl_prompt_set_load(const mbl_config_t *config, int split, mbl_prompts_t *out);
/* The same with conditions. ranks agree. Free with mbl_prompt_set_free. */
mbl_status_t mbl_prompt_set_open(const mbl_config_t *config, mbl_pipeline_t *pipeline, int split,
                                 mbl_prompt_set_t *out);
/* The same for the first prompts of a file, at most `most` of the *exist that it has. */
mbl_status_t mbl_prompt_set_read(const char *path, size_t most, mbl_pipeline_t *pipeline, size_t *exist,
                                 mbl_prompt_set_t *out);
void mbl_prompt_set_free(mbl_pipeline_t *pipeline, mbl_prompt_set_t *set);

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
