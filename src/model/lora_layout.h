/* Where adapters lie, for the passes of a family and the files of LoRA. Nothing here is for callers outside
 * src/model. */
#ifndef MBL_MODEL_LORA_LAYOUT_H
#define MBL_MODEL_LORA_LAYOUT_H

#include "model/dit_family.h"
#include "model/lora.h"

/* m of a group's linears are adapted: A [m r, in] at `a`, B of linear which[j] [out, r] at b[j]. */
typedef struct {
    size_t m, which[MBL_DIT_GROUP], a, b[MBL_DIT_GROUP];
    size_t linear; /* the group's first in the model's list */
    size_t merged; /* where the weights of all the group's linears lie in mbl_adapter_t.merged */
} mbl_lora_site_t;

struct mbl_lora {
    const mbl_dit_t *model;
    mbl_lora_config_t config;
    mbl_lora_site_t *site;        /* one for every group */
    size_t n_sites, size, size_a; /* the A of all sites come first: one product scales them all */
    size_t size_merged;
    size_t first_block;  /* no adapter below it */
    size_t widest;       /* most columns of X A' of any site */
    mbl_param_t *params; /* [2 n]: A, then B of every adapted linear */
    size_t n_params;
    size_t *adapted; /* [n] which of the model's list */
};

#endif
