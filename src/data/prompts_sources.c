/* Sets of prompts from several sources, and their split into training and test prompts. */
#include "base/mem.h"
#include "base/sha256.h"
#include "data/prompts.h"

#include <stdlib.h>
#include <string.h>

/* A number in [0, 1) that is the text's own. */
static double place_of(const char *text) {
    static const char salt[] = "marble prompts.test_share";
    unsigned char digest[MBL_SHA256_BYTES];
    uint64_t bits = 0;
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    mbl_sha256_update(&sha, salt, sizeof salt);
    mbl_sha256_update(&sha, text, strlen(text));
    mbl_sha256_final(&sha, digest);
    for (int i = 0; i < 6; i++)
        bits = bits << 8 | digest[i];
    return (double)bits / (double)((uint64_t)1 << 48);
}

void mbl_prompts_split(mbl_prompts_t *prompts, double share, int split) {
    size_t kept = 0;
    for (size_t i = 0; i < prompts->count; i++) {
        mbl_prompt_t item = prompts->items[i];
        if ((place_of(item.text) < share) == (split == 1)) {
            prompts->items[kept++] = item;
            continue;
        }
        mbl_free(item.text);
        mbl_free(item.metadata);
    }
    prompts->count = kept;
}

/* Room for the prompts and the one source of `more`. */
static mbl_status_t grow(mbl_prompts_t *all, const mbl_prompts_t *more) {
    size_t count = all->count + more->count;
    mbl_prompt_t *items = mbl_realloc(all->items, all->count, count, sizeof *items);
    if (items)
        all->items = items;
    uint32_t *source = items ? mbl_realloc(all->source, all->count, count, sizeof *source) : NULL;
    if (source)
        all->source = source;
    mbl_prompt_source_t *sources =
        source ? mbl_realloc(all->sources, all->n_sources, all->n_sources + 1, sizeof *sources) : NULL;
    if (sources)
        all->sources = sources;
    return sources ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %zu prompts", count);
}

mbl_status_t mbl_prompts_add(mbl_prompts_t *prompts, mbl_prompts_t *more, const char *name, double weight) {
    mbl_status_t status = grow(prompts, more);
    char *copy = status == MBL_OK ? mbl_strdup(name) : NULL;
    if (status == MBL_OK && !copy)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a name");
    if (status != MBL_OK) {
        mbl_prompts_free(more);
        return status;
    }
    for (size_t i = 0; i < more->count; i++) {
        prompts->items[prompts->count + i] = more->items[i];
        prompts->source[prompts->count + i] = (uint32_t)prompts->n_sources;
    }
    prompts->sources[prompts->n_sources++] = (mbl_prompt_source_t){copy, weight, more->count};
    prompts->count += more->count;
    mbl_free(more->items);
    *more = (mbl_prompts_t){.items = NULL};
    return MBL_OK;
}

typedef struct {
    double place; /* among its source's, in (0, 1) */
    uint32_t source, index;
} mixed_t;

static int by_place(const void *a, const void *b) {
    const mixed_t *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->source < y->source ? -1 : x->source > y->source;
}

mbl_status_t mbl_prompts_mix(mbl_prompts_t *prompts) {
    mbl_status_t status = MBL_OK;
    mixed_t *order = NULL;
    mbl_prompt_t *items = NULL;
    size_t given[MBL_PROMPT_SOURCES] = {0};
    MBL_ALLOC_GOTO(order, prompts->count, done);
    MBL_ALLOC_GOTO(items, prompts->count, done);
    for (uint32_t i = 0; i < prompts->count; i++) {
        uint32_t s = prompts->source[i];
        double place = ((double)given[s]++ + 0.5) / (double)prompts->sources[s].count;
        order[i] = (mixed_t){place, s, i};
    }
    qsort(order, prompts->count, sizeof *order, by_place);
    memcpy(items, prompts->items, prompts->count * sizeof *items);
    for (size_t i = 0; i < prompts->count; i++) {
        prompts->items[i] = items[order[i].index];
        prompts->source[i] = order[i].source;
    }
done:
    mbl_free(order);
    mbl_free(items);
    return status;
}
