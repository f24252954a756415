/* Where adapters lie, for the passes of a family and the files of LoRA. Nothing here is for callers outside
 * src/model. */
#ifndef MBL_MODEL_LORA_LAYOUT_H
#define MBL_MODEL_LORA_LAYOUT_H

#include "model/dit_family.h"
#include "model/lora.h"

/* m of a group's linears are adapted: of linear which[j] A [r, in] at a[j], B [out, r] at b[j]. The A lie
 * side by side but where one rank's shard ends and the next begins. */
typedef struct {
    size_t m, which[MBL_DIT_GROUP], a[MBL_DIT_GROUP], b[MBL_DIT_GROUP];
    size_t linear; /* the group's first in the model's list */
    size_t merged; /* where the weights of all the group's linears lie in mbl_adapter_t.merged */
} mbl_lora_site_t;

struct mbl_lora {
    const mbl_dit_t *model;
    mbl_lora_config_t config;
    mbl_lora_site_t *site; /* one for every group */
    size_t n_sites, size;
    size_t size_a; /* of the vector's beginning, in which all A are: one product scales them all */
    size_t size_merged;
    size_t first_block;  /* no adapter below it */
    size_t widest;       /* most columns of X A' of any site */
    mbl_param_t *params; /* [2 n]: A, then B of every adapted linear */
    size_t n_params;
    size_t *adapted;     /* [n] which of the model's list */
    size_t ranks, count; /* shards, and numbers in each */
    size_t *first;       /* [ranks + 1] where each begins in a vector without holes */
};

/* Fills first and count from params and ranks (lora_shards.c). */
void mbl_lora_cut(mbl_lora_t *lora);

#endif
