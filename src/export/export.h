/* What others load of a training checkpoint: `marble export`. */
#ifndef MBL_TRAIN_EXPORT_H
#define MBL_TRAIN_EXPORT_H

#include "base/status.h"

#include <stdbool.h>

typedef struct {
    const char *checkpoint;
    const char *adapter; /* "ema", "current" or "old" */
    const char *model;   /* the base where it lies now; NULL: where the configuration says */
    const char *lora;    /* pytorch_lora_weights.safetensors for diffusers; each of these may be NULL */
    const char *peft;    /* an adapter folder for PEFT */
    const char *merged;  /* a model folder with the adapter in its weights */
    const char *card;    /* a folder for a model card; peft and merged get one anyway */
    bool bf16;           /* weights of `merged`, else f32 */
    bool force;          /* writes over files and into folders that are there: export/target.h */
} mbl_export_options_t;

/* Refuses a checkpoint of another kind or of another base model, naming the file, and every place that is not
 * to be written to before anything is. */
mbl_status_t mbl_export(const mbl_export_options_t *options);

#endif
