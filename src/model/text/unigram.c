/* Unigram pieces: a trie of their bytes, and Viterbi's search over the characters of a text. */
#include "model/text/unigram.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "model/text/slots.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double unknown_penalty = 10; /* sentencepiece's kUnkPenalty */

/* ---- the trie ---- */

mbl_status_t mbl_unigram_init(mbl_unigram_t *u, size_t pieces, size_t bytes) {
    size_t edges = mbl_slots_for(bytes);
    memset(u, 0, sizeof *u);
    MBL_ALLOC(u->edge, edges);
    u->n_edges = edges;
    MBL_ALLOC(u->piece, bytes + 1);
    MBL_ALLOC(u->score, pieces + 1);
    u->piece[0] = -1;
    u->n_nodes = 1;
    return MBL_OK;
}

void mbl_unigram_clear(mbl_unigram_t *u) {
    mbl_free(u->edge);
    mbl_free(u->piece);
    mbl_free(u->score);
    u->edge = NULL;
    u->piece = NULL;
    u->score = NULL;
}

/* The edge from a node by a byte, or the free slot where it would go. */
static mbl_unigram_edge_t *edge_of(const mbl_unigram_t *u, int32_t node, unsigned char byte) {
    uint64_t key = (uint64_t)(uint32_t)node << 8 | byte;
    size_t i = mbl_slot_of(key, u->n_edges);
    while (u->edge[i].child && (u->edge[i].parent != node || u->edge[i].byte != byte))
        i = mbl_slot_after(i, u->n_edges);
    return &u->edge[i];
}

void mbl_unigram_add(mbl_unigram_t *u, const char *text, size_t size, double score) {
    int32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        mbl_unigram_edge_t *edge = edge_of(u, node, (unsigned char)text[i]);
        if (!edge->child) {
            *edge = (mbl_unigram_edge_t){node, (int32_t)u->n_nodes, (unsigned char)text[i]};
            u->piece[u->n_nodes++] = -1;
        }
        node = edge->child;
    }
    u->piece[node] = (int32_t)u->n_pieces;
    u->score[u->n_pieces++] = score;
}

/* The piece of exactly this text, or -1. */
static int32_t piece_of(const mbl_unigram_t *u, const char *text, size_t size) {
    int32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        node = edge_of(u, node, (unsigned char)text[i])->child;
        if (!node)
            return -1;
    }
    return u->piece[node];
}

void mbl_unigram_finish(mbl_unigram_t *u, int32_t unknown, bool bytes) {
    double least = INFINITY;
    for (size_t i = 0; i < u->n_pieces; i++)
        least = u->score[i] < least ? u->score[i] : least;
    u->unknown = unknown;
    u->unknown_score = least - unknown_penalty;
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        u->byte[b] = bytes ? piece_of(u, name, (size_t)snprintf(name, sizeof name, "<0x%02X>", b)) : -1;
    }
}

/* ---- the best cut ---- */

static void offer(mbl_unigram_node_t *node, double score, size_t begin, int32_t piece) {
    if (node->begin < 0 || score > node->score)
        *node = (mbl_unigram_node_t){score, (int32_t)begin, piece, 0};
}

/* Offers all pieces that begin at one character. */
static void offer_from(const mbl_unigram_t *u, const char *text, size_t size, size_t begin, size_t character,
                       mbl_unigram_node_t *nodes) {
    double so_far = begin > 0 ? nodes[begin].score : 0;
    bool known = false;
    int32_t node = 0;
    for (size_t end = begin; end < size;) {
        node = edge_of(u, node, (unsigned char)text[end++])->child;
        if (!node)
            break;
        if (u->piece[node] < 0)
            continue;
        offer(&nodes[end], u->score[u->piece[node]] + so_far, begin, u->piece[node]);
        known = known || end - begin == character;
    }
    if (!known)
        offer(&nodes[begin + character], u->unknown_score + so_far, begin, u->unknown);
}

/* Unknown text: a piece after all, its bytes, or the unknown one. */
static size_t put_unknown(const mbl_unigram_t *u, const char *text, size_t size, int32_t *out) {
    int32_t piece = piece_of(u, text, size);
    size_t bytes = 0;
    while (piece < 0 && bytes < size && u->byte[(unsigned char)text[bytes]] >= 0)
        bytes++;
    if (piece >= 0 || bytes < size) {
        out[0] = piece >= 0 ? piece : u->unknown;
        return 1;
    }
    for (size_t i = 0; i < size; i++)
        out[i] = u->byte[(unsigned char)text[i]];
    return size;
}

size_t mbl_unigram_cut(const mbl_unigram_t *u, const char *text, size_t size, mbl_unigram_node_t *nodes,
                       int32_t *out) {
    size_t n = 0;
    for (size_t i = 0; i <= size; i++)
        nodes[i].begin = -1;
    for (size_t i = 0, character; i < size; i += character) {
        uint32_t c;
        character = mbl_utf8_decode(text + i, size - i, &c);
        offer_from(u, text, size, i, character, nodes);
    }
    for (size_t end = size; end > 0; end = (size_t)nodes[end].begin)
        nodes[nodes[end].begin].next = (int32_t)end;
    for (size_t begin = 0; begin < size;) {
        size_t end = (size_t)nodes[begin].next;
        if (nodes[end].piece != u->unknown) {
            out[n++] = nodes[end].piece;
            begin = end;
            continue;
        }
        while (end < size && nodes[nodes[end].next].piece == u->unknown)
            end = (size_t)nodes[end].next;
        n += put_unknown(u, text + begin, end - begin, out + n);
        begin = end;
    }
    return n;
}
