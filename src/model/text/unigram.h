/* The unigram model of sentencepiece: of all ways to cut a text into known pieces, the one of the highest sum
 * of scores. */
#ifndef MBL_MODEL_UNIGRAM_H
#define MBL_MODEL_UNIGRAM_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t parent, child; /* child 0: free (0 is the root) */
    unsigned char byte;
} mbl_unigram_edge_t;

typedef struct {
    mbl_unigram_edge_t *edge; /* open addressing, n_edges a power of two */
    int32_t *piece;           /* [nodes]: the piece that ends there, -1 none */
    double *score;            /* [pieces] */
    size_t n_edges, n_nodes, n_pieces;
    double unknown_score; /* of one unknown character */
    int32_t unknown;
    int32_t byte[256]; /* pieces <0x00>..<0xFF> where an unknown text falls into its bytes; -1: it does not */
} mbl_unigram_t;

/* Room for `pieces` of `bytes` bytes in all. Free with mbl_unigram_clear. */
mbl_status_t mbl_unigram_init(mbl_unigram_t *u, size_t pieces, size_t bytes);
void mbl_unigram_clear(mbl_unigram_t *u);
/* The next piece, of the next number; not empty. Of a text that is there twice the last one counts. */
void mbl_unigram_add(mbl_unigram_t *u, const char *text, size_t size, double score);
/* After the last piece: `unknown` stands for what is in none. bytes: unknown text falls into its bytes. */
void mbl_unigram_finish(mbl_unigram_t *u, int32_t unknown, bool bytes);

/* The best way to one position of a text. */
typedef struct {
    double score;
    int32_t begin, piece; /* of the last piece; begin -1: not reached */
    int32_t next;         /* once the best way is known: where the piece that begins here ends */
} mbl_unigram_node_t;

/* Pieces of UTF-8 text into out (room for size); nodes: room for size + 1. Returns how many. Of ways of one
 * score the one found first, as the library `tokenizers` (sentencepiece may find another). Neighbouring
 * unknown characters are one piece. */
size_t mbl_unigram_cut(const mbl_unigram_t *u, const char *text, size_t size, mbl_unigram_node_t *nodes,
                       int32_t *out);

#endif
