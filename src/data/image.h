/* Images: 8-bit RGB, row-major [height, width, 3], and their files. */
#ifndef MBL_DATA_IMAGE_H
#define MBL_DATA_IMAGE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t width, height;
    uint8_t *rgb; /* [height, width, 3]; owned by whoever made it, see each call */
} mbl_image_t;

/* Allocates a black image; free with mbl_image_free. */
mbl_status_t mbl_image_new(size_t width, size_t height, mbl_image_t *out);
void mbl_image_free(mbl_image_t *image);

/* Model output [3, height, width] in [-1, 1] to 8 bits (clamped, rounded to nearest, NaN to 0) and back. */
void mbl_image_from_chw(const float *chw, size_t width, size_t height, uint8_t *rgb);
void mbl_image_to_chw(const uint8_t *rgb, size_t width, size_t height, float *chw);

/* The mean of factor x factor pixels for each; what is left at the right and lower edge is cut. Free *out. */
mbl_status_t mbl_image_shrink(const mbl_image_t *image, size_t factor, mbl_image_t *out);

/* PNG through libpng; written under a temporary name, then renamed. Errors: ERR_IO, ERR_FORMAT with the path.
 */
mbl_status_t mbl_image_write_png(const char *path, const mbl_image_t *image);
/* The same with texts in it, which `identify -verbose`, exiftool and PIL's Image.text show. */
typedef struct {
    const char *key, *text; /* of at most 79 letters of ASCII; UTF-8 */
} mbl_image_text_t;
mbl_status_t mbl_image_write_png_text(const char *path, const mbl_image_t *image,
                                      const mbl_image_text_t *texts, size_t n);
mbl_status_t mbl_image_read_png(const char *path, mbl_image_t *out);

/* Size in bytes as baseline JPEG at `quality` (libjpeg, 4:2:0). Thread-safe. */
mbl_status_t mbl_image_jpeg_bytes(const mbl_image_t *image, int quality, size_t *bytes);

/* The image as a file in memory: JPEG as above, at quality 95, or PNG. `buffer` of `capacity` bytes is used
 * anew and grown where it is too small; begin with NULL and 0, free it with mbl_free. Thread-safe. */
typedef enum { MBL_IMAGE_JPEG, MBL_IMAGE_PNG } mbl_image_format_t;
mbl_status_t mbl_image_encode(const mbl_image_t *image, mbl_image_format_t format, uint8_t **buffer,
                              size_t *capacity, size_t *bytes);

/* A sheet: n images of one size, enlarged `scale` times without smoothing, `columns` to a row, a caption
 * (UTF-8, wrapped to the cell, eight lines at most) below each and a title above all; captions, one of them,
 * or the title may be NULL. Free *sheet. */
mbl_status_t mbl_image_sheet(const mbl_image_t *images, const char *const *captions, const char *title,
                             size_t n, size_t columns, size_t scale, mbl_image_t *sheet);
/* Where the images of a sheet made so lie, in its pixels: image i has its upper left corner at (left + i %
 * columns * step_x, top + i / columns * step_y). */
typedef struct {
    size_t columns, left, top, step_x, step_y, width, height; /* width, height: of an image, enlarged */
} mbl_image_cells_t;
void mbl_image_sheet_cells(const mbl_image_t *images, const char *const *captions, const char *title,
                           size_t n, size_t columns, size_t scale, mbl_image_cells_t *out);

#endif
