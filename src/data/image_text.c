/* PNG files with text chunks, by which an image says how it was made. */
#include "data/image.h"
#include "base/file.h"
#include "base/mem.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    jmp_buf back;
    char message[120];
} png_failure_t;

static void png_failed(png_structp png, png_const_charp message) {
    png_failure_t *failure = png_get_error_ptr(png);
    snprintf(failure->message, sizeof failure->message, "%s", message);
    longjmp(failure->back, 1);
}

static void png_silent(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

/* libpng comes back to its caller by longjmp, so that nothing here may have to be freed. */
static bool write_all(png_structp png, png_infop info, FILE *file, const mbl_image_t *image, png_textp texts,
                      size_t n, png_failure_t *failure) {
    if (setjmp(failure->back))
        return false;
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_text(png, info, texts, (int)n);
    png_write_info(png, info);
    for (size_t y = 0; y < image->height; y++)
        png_write_row(png, image->rgb + 3 * y * image->width);
    png_write_end(png, NULL);
    return true;
}

/* Texts in ASCII are tEXt, which every reader has; others iTXt in UTF-8. */
static png_text as_chunk(const mbl_image_text_t *text) {
    bool ascii = true;
    for (const char *c = text->text; *c; c++)
        ascii &= (unsigned char)*c < 0x80;
    png_text chunk = {.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                      .key = (png_charp)(uintptr_t)text->key,
                      .text = (png_charp)(uintptr_t)text->text};
    *(ascii ? &chunk.text_length : &chunk.itxt_length) = strlen(text->text);
    return chunk;
}

mbl_status_t mbl_image_write_png_text(const char *path, const mbl_image_t *image,
                                      const mbl_image_text_t *texts, size_t n) {
    MBL_REQUIRE(image->width > 0 && image->height > 0 && image->width <= UINT32_MAX &&
                    image->height <= UINT32_MAX && n < 1000,
                "%s: an image of %zu x %zu with %zu texts is no PNG", path, image->width, image->height, n);
    mbl_status_t status = MBL_OK;
    mbl_file_writer_t writer;
    png_failure_t failure = {.message = "no memory"};
    png_text *chunks;
    MBL_ALLOC(chunks, n + 1);
    for (size_t i = 0; i < n; i++)
        chunks[i] = as_chunk(&texts[i]);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &failure, png_failed, png_silent);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory to write it", path);
    else
        status = mbl_file_begin(path, &writer);
    if (status == MBL_OK && !write_all(png, info, writer.file, image, chunks, n, &failure)) {
        mbl_file_discard(&writer);
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, failure.message);
    } else if (status == MBL_OK)
        status = mbl_file_commit(&writer);
    png_destroy_write_struct(&png, &info);
    mbl_free(chunks);
    return status;
}
