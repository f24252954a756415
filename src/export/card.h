/* A model card: README.md and alpha.png in a folder, from what a run left beside its checkpoints. */
#ifndef MBL_TRAIN_CARD_H
#define MBL_TRAIN_CARD_H

#include "config/config.h"

typedef struct {
    const mbl_config_t *config;
    const char *checkpoint;       /* its run's eval.jsonl and metrics.jsonl lie two folders up */
    const char *adapter, *digest; /* "ema"; of the base model's tensors */
    size_t step, weights;         /* optimizer steps done; length of the adapter */
    const char *how;              /* a few lines of Markdown: how to load what the folder holds */
} mbl_card_t;

/* Writes both (README.md alone where metrics.jsonl is missing; the table of rewards needs eval.jsonl). The
 * folder is made. */
mbl_status_t mbl_card_write(const mbl_card_t *card, const char *folder);

#endif
