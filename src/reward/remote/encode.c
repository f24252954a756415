/* Files of images, one buffer each. */
#include "reward/remote/encode.h"

#include "base/mem.h"

static mbl_status_t grow(mbl_encoded_t *encoded, size_t n) {
    struct mbl_encoded_file *files = mbl_realloc(encoded->files, encoded->count, n, sizeof *files);
    if (!files)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu image files", n);
    encoded->files = files;
    mbl_proto_piece_t *pieces = mbl_realloc(encoded->pieces, encoded->count, n, sizeof *pieces);
    if (!pieces)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu image files", n);
    encoded->pieces = pieces;
    encoded->count = n;
    return MBL_OK;
}

mbl_status_t mbl_encode(mbl_encoded_t *encoded, mbl_proto_images_t format, const mbl_image_t *images,
                        size_t n, const mbl_proto_piece_t **pieces) {
    if (n > encoded->count)
        MBL_TRY(grow(encoded, n));
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        MBL_TRY(mbl_image_encode(&images[i], format == MBL_PROTO_IMAGES_PNG ? MBL_IMAGE_PNG : MBL_IMAGE_JPEG,
                                 &encoded->files[i].data, &encoded->files[i].capacity, &bytes));
        encoded->pieces[i] = (mbl_proto_piece_t){encoded->files[i].data, bytes};
    }
    *pieces = encoded->pieces;
    return MBL_OK;
}

void mbl_encoded_free(mbl_encoded_t *encoded) {
    for (size_t i = 0; i < encoded->count; i++)
        mbl_free(encoded->files[i].data);
    mbl_free(encoded->files);
    mbl_free(encoded->pieces);
}
