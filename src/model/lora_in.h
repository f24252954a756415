/* What a LoRA file or folder says, before it is laid out for a model: which linears have matrices, of which
 * rank, and by which factor their product counts. Shared by the readers of lora_sites.c, lora_rules.c and
 * lora_read.c. */
#ifndef MBL_MODEL_LORA_IN_H
#define MBL_MODEL_LORA_IN_H

#include "base/json.h"
#include "model/safetensors.h"

/* PEFT's LoraConfig: of adapter_config.json, or of lora_adapter_metadata in a file of diffusers. All values
 * borrowed from `config`. */
typedef struct {
    json_t *config;    /* NULL: none was given, and every product counts once */
    const char *where; /* for messages */
    double rank, alpha;
    bool rslora;
    const json_t *ranks, *alphas; /* rank_pattern and alpha_pattern; NULL: none */
} mbl_lora_rules_t;

/* Takes over `config` (also when it fails). Everything PEFT would do otherwise than add alpha / r (or alpha /
 * sqrt(r)) times B A is refused by the key's name: ERR_UNSUPPORTED, ERR_CONFIG for values of the wrong kind.
 */
mbl_status_t mbl_lora_rules_read(json_t *config, const char *where, mbl_lora_rules_t *out);
void mbl_lora_rules_free(mbl_lora_rules_t *rules);

/* For the linear `site` ("transformer_blocks.0.attn.to_q") with matrices of rank `rank`: the factor of B A.
 * ERR_FORMAT when the rules give it another rank, or no adapter at all. */
mbl_status_t mbl_lora_rules_scale(const mbl_lora_rules_t *rules, const char *site, size_t rank, double *out);

/* A linear with matrices. */
enum { MBL_LORA_SITE = 112 };
typedef struct {
    char site[MBL_LORA_SITE];    /* "transformer_blocks.0.attn.to_q" */
    const mbl_st_entry_t *ab[2]; /* A [rank, in], B [out, rank] */
    const mbl_st_entry_t *alpha; /* kohya's, or NULL */
    size_t rank;
    double scale; /* of B A */
} mbl_lora_site_in_t;

typedef struct {
    const char *path, *prefix;
    mbl_st_t *st;
    mbl_lora_rules_t rules;
    char *where; /* of the rules */
    int style;   /* how matrices are called; -1: none seen yet */
    mbl_lora_site_in_t *sites;
    size_t n;
} mbl_lora_in_t;

/* Everything but the values, checked; `prefix`: with which every site begins ("transformer_blocks."). Close
 * it whether that succeeds or not. */
mbl_status_t mbl_lora_in_open(const char *path, const char *prefix, mbl_lora_in_t *in);
void mbl_lora_in_close(mbl_lora_in_t *in);

#endif
