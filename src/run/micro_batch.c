/* Micro-batches that fit. */
#include "run/micro_batch.h"

#include "base/log.h"

#include <math.h>
#include <stdint.h>

/* Tokens at once with which products fill a device: beyond, more images at once are hardly faster, and blocks
 * made again cost more than they bring. */
enum { ENOUGH_TOKENS = 8192 };
enum { LATENTS = 12 }; /* f32 copies of an image's latents in a rollout or a training pass, at most */

typedef struct {
    const mbl_passes_t *passes;
    mbl_tape_shape_t shape;
    size_t row; /* bytes of an image beside its activations */
    size_t limit;
} search_t;

static mbl_status_t count(const search_t *s, size_t rows, size_t again, size_t *bytes) {
    const mbl_dit_t *model = mbl_pipeline_model(s->passes->pipeline);
    mbl_tape_shape_t shape = s->shape;
    size_t none = 0;
    shape.max_n = rows;
    shape.again = again;
    MBL_TRY(mbl_tape_count(model, s->passes->lora, &shape, bytes));
    if (shape.kind == MBL_TAPE_LORA) {
        shape.kind = MBL_TAPE_NONE;
        MBL_TRY(mbl_tape_count(model, s->passes->lora, &shape, &none));
    }
    *bytes += none + rows * s->row;
    return MBL_OK;
}

static mbl_status_t fits(const search_t *s, size_t rows, size_t again, bool *out) {
    size_t bytes;
    MBL_TRY(count(s, rows, again, &bytes));
    *out = bytes <= s->limit;
    return MBL_OK;
}

/* Bytes grow with the rows: the largest number from 1 to `most` that fits, 1 being known to. */
static mbl_status_t most_rows(const search_t *s, size_t most, size_t again, size_t *out) {
    size_t low = 1, over = most + 1;
    while (over - low > 1) {
        const size_t middle = low + (over - low) / 2;
        bool good;
        MBL_TRY(fits(s, middle, again, &good));
        *(good ? &low : &over) = middle;
    }
    *out = low;
    return MBL_OK;
}

/* The fewest blocks made again with which `rows` fit, or all. One saves nothing: it takes the shared room. */
static mbl_status_t fewest_again(const search_t *s, size_t rows, size_t blocks, size_t *out) {
    bool good;
    *out = 0;
    MBL_TRY(fits(s, rows, 0, &good));
    for (size_t again = 2; !good && again <= blocks; again++) {
        *out = again;
        MBL_TRY(fits(s, rows, again, &good));
    }
    return MBL_OK;
}

static search_t search_of(const mbl_config_t *config, const mbl_passes_t *passes) {
    const size_t copies = passes->copies ? passes->copies : 1;
    const size_t cap = config->limits.micro_batch_bytes ? config->limits.micro_batch_bytes : SIZE_MAX;
    const mbl_dit_t *model = mbl_pipeline_model(passes->pipeline);
    search_t s = {.passes = passes};
    size_t channels, tokens = mbl_pipeline_context_tokens(passes->pipeline);
    mbl_pipeline_latent(passes->pipeline, &channels, &s.shape.height, &s.shape.width);
    s.shape.kind = passes->kind;
    s.shape.context_tokens = tokens;
    s.limit = passes->left == SIZE_MAX ? SIZE_MAX : passes->left / copies;
    if (s.limit != SIZE_MAX) /* limits.micro_batch_bytes is of activations alone */
        s.row = LATENTS * sizeof(float) * channels * s.shape.height * s.shape.width +
                tokens * mbl_dit_sizes(model)->context_width * mbl_dtype_size(mbl_dit_dtype(model));
    if (cap < s.limit) {
        s.limit = cap;
        s.row = 0;
    }
    return s;
}

static mbl_status_t none_fits(const mbl_config_t *config, const search_t *s, const char *key, size_t one) {
    char where[256];
    const bool capped = s->row == 0;
    const char *less = s->passes->kind == MBL_TAPE_NONE
                           ? "model.low_memory: on, fewer rewards"
                           : "train.checkpoint_blocks: auto or all, fewer rewards";
    if (capped)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: %zu bytes; the activations of one image (%s) take %zu; expected at least so "
                        "many, or 0 for no limit",
                        mbl_config_where(config, "limits.micro_batch_bytes", where, sizeof where), s->limit,
                        key, one);
    return MBL_FAIL(
        MBL_ERR_MEM,
        "%s: the activations of one image take %zu bytes (%.2f GB), of the memory %zu (%.2f GB) are "
        "left for them, %.2f GB are missing; expected more memory, %s, a smaller "
        "model.lora.rank or rollout.merge: never",
        mbl_config_where(config, key, where, sizeof where), one, (double)one / 1e9, s->limit,
        (double)s->limit / 1e9, (double)(one - s->limit) / 1e9, less);
}

/* Blocks made again, as the configuration says. */
static mbl_status_t choose_again(const mbl_config_t *config, const search_t *s, size_t most, size_t *out) {
    const mbl_dit_sizes_t *sizes = mbl_dit_sizes(mbl_pipeline_model(s->passes->pipeline));
    const size_t image = sizes->tokens * s->shape.height * s->shape.width / (sizes->side * sizes->side);
    const size_t enough = ENOUGH_TOKENS / (image + s->shape.context_tokens) + 1;
    const size_t asked = config->train.checkpoint_blocks;
    if (s->passes->kind == MBL_TAPE_NONE || asked == MBL_CONFIG_NONE)
        *out = 0;
    else if (asked == MBL_CONFIG_AUTO)
        return fewest_again(s, enough < most ? enough : most, sizes->blocks, out);
    else
        *out = asked < sizes->blocks ? asked : sizes->blocks;
    return MBL_OK;
}

/* The same number of micro-batches, as alike as can be: the last one of few images would cost nearly what a
 * full one does, in rounds of a device's multiprocessors and in launches, and have graphs of its own. */
static size_t even_rows(size_t images, size_t rows) {
    const size_t batches = (images + rows - 1) / rows;
    return (images + batches - 1) / batches;
}

mbl_status_t mbl_micro_batch_fit(const mbl_config_t *config, const mbl_passes_t *passes, mbl_fit_t *out) {
    const search_t s = search_of(config, passes);
    const bool rollout = passes->kind == MBL_TAPE_NONE;
    const char *key = rollout ? "rollout.micro_batch" : "train.micro_batch";
    const size_t asked = rollout ? config->rollout.micro_batch : config->train.micro_batch;
    const size_t there = passes->there ? passes->there : 1;
    const size_t most = asked == MBL_CONFIG_AUTO || asked > there ? there : asked;
    const char *cause = s.row ? "the memory that is left" : "limits.micro_batch_bytes";
    mbl_fit_t fit = {.rows = most};
    MBL_TRY(choose_again(config, &s, most, &fit.again));
    MBL_TRY(count(&s, 1, fit.again, &fit.bytes));
    if (fit.bytes > s.limit)
        return none_fits(config, &s, key, fit.bytes);
    MBL_TRY(most_rows(&s, most, fit.again, &fit.rows));
    if (asked == MBL_CONFIG_AUTO)
        fit.rows = even_rows(most, fit.rows);
    MBL_TRY(count(&s, fit.rows, fit.again, &fit.bytes));
    if (fit.rows < most)
        MBL_INFO("%s: %zu images at once instead of %zu, for %s", key, fit.rows, most, cause);
    if (fit.again > 0 && config->train.checkpoint_blocks == MBL_CONFIG_AUTO)
        MBL_INFO("train.checkpoint_blocks: %zu blocks are made again in backward passes, for %s", fit.again,
                 cause);
    *out = fit;
    return MBL_OK;
}

mbl_status_t mbl_micro_batch_left(mbl_comm_t *comm, mbl_status_t mine, mbl_ops_t *ops, size_t *left) {
    size_t bytes = SIZE_MAX;
    MBL_TRY(mbl_comm_agree(comm, mine == MBL_OK ? mbl_ops_memory_left(ops, &bytes) : mine));
    double share = bytes == SIZE_MAX ? INFINITY : (double)bytes;
    if (ops->table->space == MBL_HOST && comm->local_size > 0)
        share /= comm->local_size;
    MBL_TRY(mbl_comm_allreduce(comm, &share, 1, MBL_COMM_F64, MBL_COMM_MIN));
    *left = isfinite(share) ? (size_t)(MBL_MICRO_BATCH_SHARE * share) : SIZE_MAX;
    return MBL_OK;
}

size_t mbl_micro_batch_unit(const mbl_config_t *config) {
    return config->train.micro_batch == MBL_CONFIG_AUTO ? config->prompts.group_size
                                                        : config->train.micro_batch;
}
