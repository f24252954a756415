/* The parts of the codec of the Open Inference Protocol, version 2, over HTTP. */
#ifndef MBL_PROTO_OIP_H
#define MBL_PROTO_OIP_H

#include "proto/peer.h"

/* The inputs of a request, in their order on the wire. */
enum { OIP_IMAGES, OIP_PROMPTS, OIP_METADATA, OIP_INPUTS };

typedef struct {
    char *names[OIP_INPUTS], *model,
        *model_path;       /* model_path: "/v2/models/NAME" with a version where one was asked for */
    mbl_proto_wire_t wire; /* as the user asks */
    /* what the server says */
    char server[80];
    bool has_binary;
    /* how it is spoken to: set by the answer about the model */
    bool binary;
    size_t ranks[OIP_INPUTS]; /* dimensions of each input; 0: not sent */
    size_t height, width;     /* of the only images that it takes as pixels; 0: any */
    mbl_proto_text_t tail;    /* the end of a request's JSON: which outputs are wanted, and how */
} oip_t;

/* Element types. */
typedef enum { OIP_BOOL, OIP_UNSIGNED, OIP_SIGNED, OIP_FLOAT, OIP_BYTES } oip_class_t;
typedef struct {
    const char *name;
    size_t size; /* bytes of an element; 0: BYTES */
    oip_class_t class;
} oip_type_t;
/* NULL where there is none of that name. */
const oip_type_t *mbl_oip_type(const char *name);

/* Companions of output X: "X_valid" and "X_reason", written to out [room]. */
const char *mbl_oip_companion(const char *output, const char *what, char *out, size_t room);
enum { OIP_COMPANION = 220 };

mbl_status_t mbl_oip_learn(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                           mbl_proto_error_t *error);
mbl_status_t mbl_oip_response(const mbl_proto_peer_t *peer, const mbl_proto_response_t *response,
                              store_t *result, mbl_proto_error_t *error);

#endif
