/* The parts of the codec of chat completions: the judge's options, and the reading of its answers. */
#ifndef MBL_PROTO_CHAT_H
#define MBL_PROTO_CHAT_H

#include "proto/peer.h"

typedef struct mbl_chat_pattern mbl_chat_pattern_t;
typedef struct {
    char *model; /* NULL until learned, when the user names none */
    bool named;  /* by the user */
    char *question, *system, *field;
    mbl_chat_pattern_t *pattern; /* NULL: the answer is JSON and `field` the score */
    double low, high, divide;
    size_t votes;
    mbl_proto_text_t begin, end; /* of every request, around the image and the question */
} chat_t;

/* A Perl-compatible pattern with one group. Errors: ERR_CONFIG with where it is wrong, ERR_MEM. */
mbl_status_t mbl_chat_pattern_open(const char *pattern, mbl_chat_pattern_t **out);
void mbl_chat_pattern_close(mbl_chat_pattern_t *pattern);

/* Reads all votes of the one image of a response. */
mbl_status_t mbl_chat_response(const mbl_proto_peer_t *peer, const mbl_proto_response_t *response,
                               store_t *result, mbl_proto_error_t *error);

#endif
