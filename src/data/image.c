/* Images in memory and as PNG files. */
#include "data/image.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

/* An image larger than this is refused: a damaged header must not take the machine's memory. */
#define LARGEST_BYTES ((size_t)1 << 30)

mbl_status_t mbl_image_new(size_t width, size_t height, mbl_image_t *out) {
    size_t pixels, bytes;
    MBL_REQUIRE(width > 0 && height > 0 && mbl_mul(width, height, &pixels) && mbl_mul(pixels, 3, &bytes) &&
                    bytes <= LARGEST_BYTES,
                "an image of %zu x %zu; expected from 1 x 1 to %zu bytes", width, height, LARGEST_BYTES);
    uint8_t *rgb;
    MBL_ALLOC(rgb, bytes);
    *out = (mbl_image_t){width, height, rgb};
    return MBL_OK;
}

void mbl_image_free(mbl_image_t *image) {
    mbl_free(image->rgb);
    *image = (mbl_image_t){0, 0, NULL};
}

void mbl_image_from_chw(const float *chw, size_t width, size_t height, uint8_t *rgb) {
    size_t plane = width * height;
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++) {
            float value = (chw[c * plane + i] + 1.0f) * 127.5f;
            rgb[3 * i + c] = (uint8_t)(value > 0.0f ? value < 255.0f ? value + 0.5f : 255.0f : 0.0f);
        }
}

void mbl_image_to_chw(const uint8_t *rgb, size_t width, size_t height, float *chw) {
    size_t plane = width * height;
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            chw[c * plane + i] = (float)rgb[3 * i + c] / 127.5f - 1.0f;
}

static uint8_t mean_of(const mbl_image_t *image, size_t left, size_t top, size_t side, size_t channel) {
    size_t sum = 0;
    for (size_t y = top; y < top + side; y++)
        for (size_t x = left; x < left + side; x++)
            sum += image->rgb[3 * (y * image->width + x) + channel];
    return (uint8_t)((sum + side * side / 2) / (side * side));
}

mbl_status_t mbl_image_shrink(const mbl_image_t *image, size_t factor, mbl_image_t *out) {
    MBL_REQUIRE(factor > 0 && image->width >= factor && image->height >= factor,
                "an image of %zu x %zu cannot be made %zu times smaller", image->width, image->height,
                factor);
    MBL_TRY(mbl_image_new(image->width / factor, image->height / factor, out));
    for (size_t y = 0; y < out->height; y++)
        for (size_t x = 0; x < out->width; x++)
            for (size_t c = 0; c < 3; c++)
                out->rgb[3 * (y * out->width + x) + c] = mean_of(image, x * factor, y * factor, factor, c);
    return MBL_OK;
}

mbl_status_t mbl_image_write_png(const char *path, const mbl_image_t *image) {
    MBL_REQUIRE(image->width > 0 && image->height > 0 && image->width <= UINT32_MAX &&
                    image->height <= UINT32_MAX,
                "%s: an image of %zu x %zu is no PNG", path, image->width, image->height);
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)image->width,
                     .height = (png_uint_32)image->height,
                     .format = PNG_FORMAT_RGB};
    mbl_file_writer_t writer;
    MBL_TRY(mbl_file_begin(path, &writer));
    if (!png_image_write_to_stdio(&png, writer.file, 0, image->rgb, 0, NULL)) {
        mbl_file_discard(&writer);
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, png.message);
    }
    return mbl_file_commit(&writer);
}

static mbl_status_t read_open_png(const char *path, png_image *png, FILE *file, mbl_image_t *out) {
    if (!png_image_begin_read_from_stdio(png, file))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: not a PNG that can be read: %s", path, png->message);
    png->format = PNG_FORMAT_RGB;
    if ((size_t)png->width * png->height > LARGEST_BYTES / 3)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: an image of %u x %u; expected at most %zu bytes", path,
                        png->width, png->height, LARGEST_BYTES);
    mbl_image_t image;
    MBL_TRY(mbl_image_new(png->width, png->height, &image));
    const png_color white = {255, 255, 255}; /* under what is transparent */
    if (!png_image_finish_read(png, &white, image.rgb, 0, NULL)) {
        mbl_image_free(&image);
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: a damaged PNG: %s", path, png->message);
    }
    *out = image;
    return MBL_OK;
}

mbl_status_t mbl_image_read_png(const char *path, mbl_image_t *out) {
    png_image png = {.version = PNG_IMAGE_VERSION};
    FILE *file = fopen(path, "rb");
    if (!file)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    mbl_status_t status = read_open_png(path, &png, file, out);
    png_image_free(&png);
    fclose(file);
    return status;
}
