/* A run that starts from a LoRA of others (model.lora.from). */
#ifndef MBL_RUN_START_H
#define MBL_RUN_START_H

#include "run/state.h"

/* A configuration whose adapter is laid out as the file's is, where its own keys do not say. */
typedef struct {
    mbl_config_t config; /* shallow: what it is made from stays */
    mbl_lora_config_t lora;
    char *targets[MBL_LORA_MAX_TARGETS]; /* of lora */
} mbl_start_t;

/* Makes *out where the configuration has a model.lora.from, which is logged with what is taken from it.
 * ERR_CONFIG where a rank or targets that are given do not hold the file's adapter. Local. */
mbl_status_t mbl_start_layout(const mbl_config_t *config, const mbl_dit_t *model, mbl_start_t *out);
/* Puts the file's values, read by rank 0, into a fresh state. Matrices that the file lacks, and what is more
 * than its rank, start as in a run without it: A random, B zero. Collective. */
mbl_status_t mbl_start_values(mbl_state_t *state);

#endif
