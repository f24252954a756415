/* Byte-pair encoding: symbols in a linked list, possible merges in a heap, so that a word of n bytes takes n
 * log n. */
#include "model/text/bpe.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "model/text/slots.h"

#include <string.h>

/* Printable Latin-1 stands for itself, the other bytes for U+0100 and up in their order. */
void mbl_bpe_byte_text(unsigned char byte, char out[3]) {
    uint32_t c = byte, others = 0;
    bool printable = false;
    for (uint32_t b = 0; b <= byte; b++) {
        printable = (b >= 33 && b < 127) || (b >= 161 && b != 173);
        others += !printable;
    }
    if (!printable)
        c = 0x100 + others - 1;
    char text[4];
    size_t n = mbl_utf8_encode(c, text);
    memcpy(out, text, n);
    out[n] = 0;
}

mbl_status_t mbl_bpe_init(mbl_bpe_t *bpe, size_t merges) {
    size_t slots = mbl_slots_for(merges);
    memset(bpe, 0, sizeof *bpe);
    MBL_ALLOC(bpe->slot, slots);
    bpe->n_slots = slots;
    for (size_t i = 0; i < slots; i++)
        bpe->slot[i].rank = -1;
    return MBL_OK;
}

void mbl_bpe_clear(mbl_bpe_t *bpe) {
    mbl_free(bpe->slot);
    bpe->slot = NULL;
    bpe->n_slots = 0;
}

/* The slot of a pair, or the free one where it would go. */
static mbl_bpe_merge_t *slot_of(const mbl_bpe_t *bpe, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = mbl_slot_of(pair, bpe->n_slots);
    while (bpe->slot[i].rank >= 0 && bpe->slot[i].pair != pair)
        i = mbl_slot_after(i, bpe->n_slots);
    return &bpe->slot[i];
}

void mbl_bpe_add(mbl_bpe_t *bpe, int32_t left, int32_t right, int32_t id) {
    mbl_bpe_merge_t *slot = slot_of(bpe, left, right);
    int32_t rank = (int32_t)bpe->n_merges++;
    if (slot->rank < 0)
        *slot = (mbl_bpe_merge_t){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, id};
}

/* ---- one word ---- */

typedef struct {
    int32_t id;
    uint32_t previous, next; /* symbols; NONE at the ends */
} bpe_symbol_t;

typedef struct {
    int32_t rank, id; /* id: of both together, to know an entry that is out of date */
    uint32_t left;
} bpe_candidate_t;

typedef struct {
    const mbl_bpe_t *bpe;
    bpe_symbol_t *symbol;
    bpe_candidate_t *heap;
    size_t n_heap;
} bpe_work_t;

enum { DEAD = -2 };
#define NONE UINT32_MAX

size_t mbl_bpe_scratch_size(size_t n) {
    return n * (sizeof(bpe_symbol_t) + 3 * sizeof(bpe_candidate_t));
}

static bool before(const bpe_candidate_t *a, const bpe_candidate_t *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

/* Offers the pair of `left` and what follows it. */
static void offer(bpe_work_t *work, uint32_t left) {
    const bpe_symbol_t *symbol = work->symbol;
    if (left == NONE || symbol[left].next == NONE)
        return;
    const mbl_bpe_merge_t *merge = slot_of(work->bpe, symbol[left].id, symbol[symbol[left].next].id);
    if (merge->rank < 0)
        return;
    bpe_candidate_t added = {merge->rank, merge->id, left};
    size_t i = work->n_heap++;
    for (; i > 0 && before(&added, &work->heap[(i - 1) / 2]); i = (i - 1) / 2)
        work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = added;
}

static bpe_candidate_t take_best(bpe_work_t *work) {
    bpe_candidate_t best = work->heap[0], moved = work->heap[--work->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < work->n_heap) {
        if (child + 1 < work->n_heap && before(&work->heap[child + 1], &work->heap[child]))
            child++;
        if (!before(&work->heap[child], &moved))
            break;
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = moved;
    return best;
}

static void merge_best(bpe_work_t *work) {
    bpe_candidate_t best = take_best(work);
    bpe_symbol_t *left = &work->symbol[best.left];
    if (left->id == DEAD || left->next == NONE)
        return;
    bpe_symbol_t *right = &work->symbol[left->next];
    const mbl_bpe_merge_t *now = slot_of(work->bpe, left->id, right->id);
    if (now->rank != best.rank || now->id != best.id)
        return;
    left->id = best.id;
    left->next = right->next;
    right->id = DEAD;
    if (left->next != NONE)
        work->symbol[left->next].previous = best.left;
    offer(work, left->previous);
    offer(work, best.left);
}

size_t mbl_bpe_word(const mbl_bpe_t *bpe, const char *word, size_t n, void *scratch, int32_t *out) {
    bpe_work_t work = {bpe, scratch, (bpe_candidate_t *)((bpe_symbol_t *)scratch + n), 0};
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)word[i];
        work.symbol[i] = (bpe_symbol_t){i + 1 < n ? bpe->byte[byte] : bpe->last[byte], (uint32_t)i - 1,
                                        i + 1 < n ? (uint32_t)i + 1 : NONE};
    }
    for (size_t i = 0; i + 1 < n; i++)
        offer(&work, (uint32_t)i);
    while (work.n_heap > 0)
        merge_best(&work);
    size_t count = 0;
    for (uint32_t i = 0; i != NONE; i = work.symbol[i].next)
        out[count++] = work.symbol[i].id;
    return count;
}
