/* Images as files in memory, for servers that ask for files, and their size as JPEG. */
#include "data/image.h"

#include "base/mem.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum { QUALITY = 95 };

/* ---- JPEG ---- */

/* An error handler that comes back instead of ending the program. */
typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
} failure_t;

static void failed(j_common_ptr jpeg) {
    failure_t *failure = (failure_t *)jpeg->err;
    failure->base.format_message(jpeg, failure->message);
    longjmp(failure->back, 1);
}

static void silent(j_common_ptr jpeg) {
    (void)jpeg;
}

static struct jpeg_error_mgr *come_back(failure_t *failure) {
    jpeg_std_error(&failure->base);
    failure->base.error_exit = failed;
    failure->base.output_message = silent;
    return &failure->base;
}

static void compress(struct jpeg_compress_struct *jpeg, const mbl_image_t *image, int quality) {
    jpeg->image_width = (JDIMENSION)image->width;
    jpeg->image_height = (JDIMENSION)image->height;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg); /* Y'CbCr 4:2:0 */
    jpeg_set_quality(jpeg, quality, TRUE);
    jpeg_start_compress(jpeg, TRUE);
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = image->rgb + 3 * image->width * jpeg->next_scanline;
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
}

/* A destination that only counts. */
typedef struct {
    struct jpeg_destination_mgr base;
    size_t full; /* buffers that went by */
    JOCTET buffer[4096];
} counter_t;

static void counter_reset(j_compress_ptr jpeg) {
    counter_t *counter = (counter_t *)jpeg->dest;
    counter->base.next_output_byte = counter->buffer;
    counter->base.free_in_buffer = sizeof counter->buffer;
}

static boolean counter_full(j_compress_ptr jpeg) {
    ((counter_t *)jpeg->dest)->full++;
    counter_reset(jpeg);
    return TRUE;
}

static void counter_end(j_compress_ptr jpeg) {
    (void)jpeg;
}

mbl_status_t mbl_image_jpeg_bytes(const mbl_image_t *image, int quality, size_t *bytes) {
    MBL_REQUIRE(
        image->width > 0 && image->width <= JPEG_MAX_DIMENSION && image->height > 0 &&
            image->height <= JPEG_MAX_DIMENSION && quality >= 1 && quality <= 100,
        "JPEG of a %zu x %zu image at quality %d; expected sides from 1 to %ld and quality from 1 to 100",
        image->width, image->height, quality, JPEG_MAX_DIMENSION);
    struct jpeg_compress_struct jpeg = {0}; /* nothing to destroy, should creating it fail */
    failure_t failure;
    counter_t counter = {.base = {.init_destination = counter_reset,
                                  .empty_output_buffer = counter_full,
                                  .term_destination = counter_end}};
    jpeg.err = come_back(&failure);
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&jpeg);
        return MBL_FAIL(MBL_ERR_FORMAT, "JPEG of a %zu x %zu image: %s", image->width, image->height,
                        failure.message);
    }
    jpeg_create_compress(&jpeg);
    jpeg.dest = &counter.base;
    compress(&jpeg, image, quality);
    *bytes = (counter.full + 1) * sizeof counter.buffer - counter.base.free_in_buffer;
    jpeg_destroy_compress(&jpeg);
    return MBL_OK;
}

/* ---- files in memory ---- */

static mbl_status_t grow(uint8_t **buffer, size_t *capacity, size_t bytes) {
    if (bytes <= *capacity)
        return MBL_OK;
    uint8_t *grown = mbl_realloc(*buffer, *capacity, bytes + bytes / 4, 1);
    if (!grown)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for an image file of %zu bytes", bytes);
    *buffer = grown;
    *capacity = bytes + bytes / 4;
    return MBL_OK;
}

static mbl_status_t encode_jpeg(const mbl_image_t *image, uint8_t **buffer, size_t *capacity, size_t *bytes) {
    struct jpeg_compress_struct jpeg = {0};
    failure_t failure;
    unsigned char *volatile made = NULL; /* libjpeg's; it changes across the jump */
    unsigned long size = 0;
    jpeg.err = come_back(&failure);
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&jpeg);
        free(made);
        return MBL_FAIL(MBL_ERR_FORMAT, "JPEG of a %zu x %zu image: %s", image->width, image->height,
                        failure.message);
    }
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, (unsigned char **)&made, &size);
    compress(&jpeg, image, QUALITY);
    jpeg_destroy_compress(&jpeg);
    mbl_status_t status = grow(buffer, capacity, size);
    if (status == MBL_OK) {
        memcpy(*buffer, made, size);
        *bytes = size;
    }
    free(made);
    return status;
}

static mbl_status_t encode_png(const mbl_image_t *image, uint8_t **buffer, size_t *capacity, size_t *bytes) {
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)image->width,
                     .height = (png_uint_32)image->height,
                     .format = PNG_FORMAT_RGB,
                     .flags = PNG_IMAGE_FLAG_FAST};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
    MBL_TRY(grow(buffer, capacity, size));
    if (!png_image_write_to_memory(&png, *buffer, &size, 0, image->rgb, 0, NULL))
        return MBL_FAIL(MBL_ERR_FORMAT, "PNG of a %zu x %zu image: %s", image->width, image->height,
                        png.message);
    *bytes = size;
    return MBL_OK;
}

mbl_status_t mbl_image_encode(const mbl_image_t *image, mbl_image_format_t format, uint8_t **buffer,
                              size_t *capacity, size_t *bytes) {
    MBL_REQUIRE(image->width > 0 && image->width <= JPEG_MAX_DIMENSION && image->height > 0 &&
                    image->height <= JPEG_MAX_DIMENSION,
                "an image of %zu x %zu as a file; expected sides from 1 to %ld", image->width, image->height,
                JPEG_MAX_DIMENSION);
    return (format == MBL_IMAGE_JPEG ? encode_jpeg : encode_png)(image, buffer, capacity, bytes);
}
