/* The images of one request as files. */
#ifndef MBL_REWARD_REMOTE_ENCODE_H
#define MBL_REWARD_REMOTE_ENCODE_H

#include "data/image.h"
#include "proto/codec.h"

/* Buffers that are used anew from request to request; begin with {0}. */
typedef struct {
    struct mbl_encoded_file {
        uint8_t *data;
        size_t capacity;
    } * files;
    mbl_proto_piece_t *pieces;
    size_t count;
} mbl_encoded_t;

/* n images as JPEG or PNG; *pieces [n] lives until the next call. */
mbl_status_t mbl_encode(mbl_encoded_t *encoded, mbl_proto_images_t format, const mbl_image_t *images,
                        size_t n, const mbl_proto_piece_t **pieces);
void mbl_encoded_free(mbl_encoded_t *encoded);

#endif
