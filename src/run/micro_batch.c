/* Micro-batches that fit. */
#include "run/micro_batch.h"

#include "base/log.h"

typedef struct {
    mbl_pipeline_t *pipeline;
    const mbl_lora_t *lora;
    mbl_tape_kind_t kind;
} passes_t;

static mbl_status_t count(const passes_t *p, size_t rows, size_t *bytes) {
    const mbl_dit_t *model = mbl_pipeline_model(p->pipeline);
    size_t c, height, width, tokens = mbl_pipeline_context_tokens(p->pipeline), none = 0;
    mbl_pipeline_latent(p->pipeline, &c, &height, &width);
    MBL_TRY(mbl_tape_count(model, p->lora, p->kind, rows, height, width, tokens, bytes));
    if (p->kind == MBL_TAPE_LORA)
        MBL_TRY(mbl_tape_count(model, p->lora, MBL_TAPE_NONE, rows, height, width, tokens, &none));
    *bytes += none;
    return MBL_OK;
}

/* Bytes grow with the rows: the largest number from 1 to `most` that fits, 1 being known to. */
static mbl_status_t search(const passes_t *p, size_t limit, size_t most, size_t *out) {
    size_t fits = 1, over = most + 1, bytes;
    while (over - fits > 1) {
        size_t middle = fits + (over - fits) / 2;
        MBL_TRY(count(p, middle, &bytes));
        if (bytes <= limit)
            fits = middle;
        else
            over = middle;
    }
    *out = fits;
    return MBL_OK;
}

mbl_status_t mbl_micro_batch_fit(const mbl_config_t *config, mbl_pipeline_t *pipeline, const mbl_lora_t *lora,
                                 mbl_tape_kind_t kind, const char *key, size_t asked, size_t there,
                                 size_t *out) {
    const passes_t passes = {pipeline, lora, kind};
    const size_t limit = config->limits.micro_batch_bytes, most = asked < there ? asked : there;
    size_t one = 0, rows = most ? most : 1;
    char where[256];
    if (limit > 0) {
        MBL_TRY(count(&passes, 1, &one));
        if (one > limit)
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "%s: %zu bytes; the activations of one image (%s) take %zu; expected at least so "
                            "many, or 0 for no limit",
                            mbl_config_where(config, "limits.micro_batch_bytes", where, sizeof where), limit,
                            key, one);
        MBL_TRY(search(&passes, limit, rows, &rows));
        if (rows < most)
            MBL_INFO("%s: %zu images at once instead of %zu, for limits.micro_batch_bytes", key, rows, most);
    }
    *out = rows;
    return MBL_OK;
}
