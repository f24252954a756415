/* How many images pass through the model at once: what the configuration says, no more than there are, and
 * as few as limits.micro_batch_bytes asks for. */
#ifndef MBL_RUN_MICRO_BATCH_H
#define MBL_RUN_MICRO_BATCH_H

#include "config/config.h"
#include "model/pipeline.h"

/* The largest number of images up to `asked` (of the key `key`) and `there`, at least 1, whose activations
 * fit: those of passes without gradients (MBL_TAPE_NONE; rollouts), of these and one with the adapters'
 * (MBL_TAPE_LORA), or of one with all gradients (MBL_TAPE_FULL). ERR_CONFIG where one image does not. Local;
 * rank 0 logs where the limit is less than the others. */
mbl_status_t mbl_micro_batch_fit(const mbl_config_t *config, mbl_pipeline_t *pipeline, const mbl_lora_t *lora,
                                 mbl_tape_kind_t kind, const char *key, size_t asked, size_t there,
                                 size_t *out);

#endif
