/* Adapters in shards of ranks: a vector is cut between matrices, in their order, so that the longest shard is
 * as short as can be; all are as long as that one. */
#include "model/lora_layout.h"

#include <string.h>

enum { ALIGN = 16 }; /* numbers; shards of other vectors are multiples of it too */

/* Fills shards of at most `most` numbers one after the other; false where `ranks` are too few. */
static bool fill(mbl_lora_t *lora, size_t most) {
    size_t r = 0;
    lora->first[0] = 0;
    for (size_t i = 0; i < lora->n_params; i++) {
        const mbl_param_t *param = &lora->params[i];
        if (param->count > most)
            return false;
        if (param->offset + param->count - lora->first[r] <= most)
            continue;
        if (++r == lora->ranks)
            return false;
        lora->first[r] = param->offset;
    }
    while (r < lora->ranks)
        lora->first[++r] = lora->size;
    return true;
}

void mbl_lora_cut(mbl_lora_t *lora) {
    size_t low = (lora->size + lora->ranks - 1) / lora->ranks, high = lora->size; /* which always does */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (fill(lora, middle))
            high = middle;
        else
            low = middle + 1;
    }
    fill(lora, high);
    lora->count = lora->ranks == 1 ? lora->size : (high + ALIGN - 1) / ALIGN * ALIGN;
}

size_t mbl_lora_ranks(const mbl_lora_t *lora) {
    return lora->ranks;
}

size_t mbl_lora_room(const mbl_lora_t *lora) {
    return lora->ranks * lora->count;
}

void mbl_lora_range(const mbl_lora_t *lora, size_t rank, size_t *first, size_t *last) {
    *first = lora->first[rank];
    *last = lora->first[rank + 1];
}

void mbl_lora_pack(const mbl_lora_t *lora, float *vector) {
    for (size_t r = 1; r < lora->ranks; r++)
        memmove(vector + lora->first[r], vector + r * lora->count,
                (lora->first[r + 1] - lora->first[r]) * sizeof *vector);
}

void mbl_lora_spread(const mbl_lora_t *lora, float *vector) {
    for (size_t r = lora->ranks; r-- > 0;) {
        size_t n = lora->first[r + 1] - lora->first[r];
        memmove(vector + r * lora->count, vector + lora->first[r], n * sizeof *vector);
        memset(vector + r * lora->count + n, 0, (lora->count - n) * sizeof *vector);
    }
}
