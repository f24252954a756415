/* src/data/image.c, image_encode.c, image_text.c, sheet.c: conversions, PNG there and back, damaged files,
 * JPEG sizes, sheets. */
#include "support.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/image.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static mbl_image_t random_image(size_t width, size_t height, uint64_t sample) {
    mbl_image_t image;
    mbl_rng_t rng = mbl_rng(21, MBL_RNG_NOISE, 0, sample);
    assert_int_equal(mbl_image_new(width, height, &image), MBL_OK);
    for (size_t i = 0; i < 3 * width * height; i++)
        image.rgb[i] = (uint8_t)mbl_rng_below(&rng, 256);
    return image;
}

static void floats_become_bytes_and_back(void **state) {
    (void)state;
    const float chw[3 * 2] = {-1, 1, 0.0f, NAN, -7, 1e30f}; /* 2 x 1: red, green, blue planes */
    uint8_t rgb[6];
    mbl_image_from_chw(chw, 2, 1, rgb);
    const uint8_t want[6] = {0, 128, 0, 255, 0, 255};
    assert_memory_equal(rgb, want, 6);
    uint8_t all[3 * 256], again[3 * 256];
    float values[3 * 256];
    for (int i = 0; i < 256; i++)
        for (int c = 0; c < 3; c++)
            all[3 * i + c] = (uint8_t)(c == 0 ? i : c == 1 ? 255 - i : 7 * i);
    mbl_image_to_chw(all, 16, 16, values);
    assert_near(values[0], -1, 0);
    assert_near(values[255], 1, 0);
    assert_near(values[256], 1, 0); /* the green plane begins at 255 */
    assert_near(values[51], 51 / 127.5 - 1, 1e-6);
    mbl_image_from_chw(values, 16, 16, again);
    assert_memory_equal(again, all, sizeof all);
    const float half = 100.49f / 127.5f - 1, more = 100.51f / 127.5f - 1; /* to the nearest */
    const float near[3] = {half, more, -INFINITY};
    mbl_image_from_chw(near, 1, 1, rgb);
    assert_int_equal(rgb[0], 100);
    assert_int_equal(rgb[1], 101);
    assert_int_equal(rgb[2], 0);
}

static void png_comes_back(void **state) {
    (void)state;
    char folder[256], path[512];
    size_t live = mbl_mem_live();
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/a.png", folder);
    for (uint64_t i = 0; i < 2; i++) { /* the second replaces the first */
        mbl_image_t image = random_image(33 + i, 7, i), back;
        assert_int_equal(mbl_image_write_png(path, &image), MBL_OK);
        assert_int_equal(mbl_image_read_png(path, &back), MBL_OK);
        assert_int_equal(back.width, 33 + i);
        assert_int_equal(back.height, 7);
        assert_memory_equal(back.rgb, image.rgb, 3 * image.width * image.height);
        mbl_image_free(&image);
        mbl_image_free(&back);
    }
    remove_folder(folder);
    assert_int_equal(mbl_mem_live(), live);
}

/* Cuts and bit flips: refused with the path, or (where a flip does not matter) read; never more, never a
 * leak. */
static void damaged_png_is_refused(void **state) {
    (void)state;
    char folder[256], path[512], *bytes;
    size_t size, live = mbl_mem_live(), refused = 0;
    mbl_image_t image = random_image(9, 9, 3), back = {77, 0, NULL};
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/a.png", folder);
    assert_int_equal(mbl_image_write_png(path, &image), MBL_OK);
    mbl_image_free(&image);
    bytes = read_whole(path, &size);
    mbl_fail_quiet(1);
    for (size_t cut = 0; cut < size - 16;
         cut++) { /* the last 12 bytes, IEND, and the checksum before may be missing */
        write_whole(path, bytes, cut);
        assert_int_equal(mbl_image_read_png(path, &back), MBL_ERR_FORMAT);
        assert_non_null(strstr(mbl_fail_message(), path));
    }
    assert_int_equal(back.width, 77);
    for (size_t bit = 0; bit < 8 * size; bit += 3) {
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        write_whole(path, bytes, size);
        mbl_status_t status = mbl_image_read_png(path, &back);
        if (status == MBL_OK)
            mbl_image_free(&back);
        else
            assert_int_equal(status, MBL_ERR_FORMAT);
        refused += status != MBL_OK;
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
    }
    assert_true(refused > size); /* of 8/3 size flips */
    write_whole(path, "a text, not an image", 21);
    assert_int_equal(mbl_image_read_png(path, &back), MBL_ERR_FORMAT);
    mbl_fail_quiet(0);
    free(bytes);
    remove_folder(folder);
    assert_int_equal(mbl_mem_live(), live);
}

static void absent_places_are_named(void **state) {
    (void)state;
    mbl_image_t image = random_image(2, 2, 0), back;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_image_read_png("nowhere/a.png", &back), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "nowhere/a.png"));
    assert_int_equal(mbl_image_write_png("nowhere/a.png", &image), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "nowhere/a.png"));
    assert_int_equal(mbl_image_write_png("/dev/full/a.png", &image), MBL_ERR_IO);
    assert_int_equal(mbl_image_new(0, 3, &back), MBL_ERR_ARG);
    assert_int_equal(mbl_image_new(SIZE_MAX / 2, 3, &back), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    mbl_image_free(&image);
}

/* Sizes that follow from the format: an even image has headers, and per block of 8 x 8 a few bits. */
static void jpeg_sizes_are_plausible(void **state) {
    (void)state;
    mbl_image_t even, noise = random_image(32, 32, 4), large = random_image(256, 128, 5);
    size_t bytes, low, high;
    assert_int_equal(mbl_image_new(32, 32, &even), MBL_OK);
    assert_int_equal(mbl_image_jpeg_bytes(&even, 90, &bytes), MBL_OK);
    assert_in_range(bytes, 600, 700); /* 623 of headers and tables */
    assert_int_equal(mbl_image_jpeg_bytes(&noise, 10, &low), MBL_OK);
    assert_int_equal(mbl_image_jpeg_bytes(&noise, 90, &high), MBL_OK);
    assert_in_range(low, bytes, high - 400);
    assert_int_equal(mbl_image_jpeg_bytes(&large, 90, &bytes), MBL_OK); /* more than one buffer */
    assert_near((double)(bytes - 623), 32.0 * (double)(high - 623), 3000);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_image_jpeg_bytes(&noise, 0, &bytes), MBL_ERR_ARG);
    large.width = 70000;
    assert_int_equal(mbl_image_jpeg_bytes(&large, 90, &bytes), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    mbl_image_free(&even);
    mbl_image_free(&noise);
    mbl_image_free(&large);
}

typedef struct {
    mbl_image_t image;
    size_t bytes, wrong;
} shared_t;

static void compress_often(void *argument) {
    shared_t *shared = argument;
    for (int i = 0; i < 200; i++) {
        size_t bytes = 0;
        mbl_status_t status = mbl_image_jpeg_bytes(&shared->image, 90, &bytes);
        shared->wrong += status != MBL_OK || bytes != shared->bytes;
    }
}

static void jpeg_from_several_threads(void **state) {
    (void)state;
    uv_thread_t threads[4];
    shared_t shared[4];
    for (uint64_t t = 0; t < 4; t++) {
        shared[t].image = random_image(16 + 8 * t, 32, t);
        shared[t].wrong = 0;
        assert_int_equal(mbl_image_jpeg_bytes(&shared[t].image, 90, &shared[t].bytes), MBL_OK);
    }
    for (int t = 0; t < 4; t++)
        assert_int_equal(uv_thread_create(&threads[t], compress_often, &shared[t]), 0);
    for (int t = 0; t < 4; t++) {
        assert_int_equal(uv_thread_join(&threads[t]), 0);
        assert_int_equal(shared[t].wrong, 0);
        mbl_image_free(&shared[t].image);
    }
}

/* Dark pixels of a box. */
static size_t inked(const mbl_image_t *image, size_t left, size_t top, size_t width, size_t height) {
    size_t count = 0;
    for (size_t y = top; y < top + height; y++)
        for (size_t x = left; x < left + width; x++)
            count += image->rgb[3 * (y * image->width + x)] < 128;
    return count;
}

static void a_smaller_image_has_the_means(void **state) {
    (void)state;
    mbl_image_t image = random_image(7, 5, 3), small;
    assert_int_equal(mbl_image_shrink(&image, 2, &small), MBL_OK);
    assert_int_equal(small.width, 3);
    assert_int_equal(small.height, 2);
    for (size_t c = 0; c < 3; c++) { /* the last one */
        const uint8_t *at = image.rgb + 3 * (2 * 7 + 4) + c;
        assert_int_equal(small.rgb[3 * 5 + c], (at[0] + at[3] + at[21] + at[24] + 2) / 4);
    }
    mbl_fail_quiet(1);
    assert_int_equal(mbl_image_shrink(&image, 6, &small), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    mbl_image_free(&image);
    mbl_image_free(&small);
}

static void sheet_holds_images_and_captions(void **state) {
    (void)state;
    mbl_image_t images[3], plain, captioned, titled;
    const char *captions[3] = {"one", NULL, "a long caption that needs more than one line"};
    for (uint64_t i = 0; i < 3; i++)
        images[i] = random_image(20, 10, i);
    assert_int_equal(mbl_image_sheet(images, NULL, NULL, 3, 2, 3, &plain), MBL_OK);
    assert_int_equal(plain.width, 2 * (60 + 8) + 8);
    assert_int_equal(plain.height, 2 * (30 + 8) + 8);
    for (size_t y = 0; y < 30; y++) /* the third: second row, first column; each pixel nine times */
        for (size_t x = 0; x < 60; x++)
            assert_memory_equal(plain.rgb + 3 * ((46 + y) * plain.width + 8 + x),
                                images[2].rgb + 3 * (y / 3 * 20 + x / 3), 3);
    assert_int_equal(inked(&plain, 0, 0, plain.width, 8), 0);
    assert_int_equal(mbl_image_sheet(images, captions, NULL, 3, 2, 3, &captioned), MBL_OK);
    assert_true(captioned.height >= plain.height + 2 * 3 * 11); /* three lines at least */
    mbl_image_cells_t at;
    mbl_image_sheet_cells(images, captions, "title", 3, 2, 3, &at);
    assert_true(at.columns == 2 && at.width == 60 && at.height == 30 && at.left == 8);
    assert_int_equal(mbl_image_sheet(images, captions, "title", 3, 2, 3, &titled), MBL_OK);
    for (size_t y = 0; y < 30; y++) /* the third again, below captions and title */
        for (size_t x = 0; x < 60; x++)
            assert_memory_equal(titled.rgb + 3 * ((at.top + at.step_y + y) * titled.width + at.left + x),
                                images[2].rgb + 3 * (y / 3 * 20 + x / 3), 3);
    mbl_image_free(&titled);
    assert_true(inked(&captioned, 8, 38, 60, 20) > 5);
    assert_int_equal(inked(&captioned, 76, 38, 60, 20), 0); /* no caption */
    assert_int_equal(mbl_image_sheet(images, NULL, "\xC3\xA9", 3, 2, 3, &titled), MBL_OK);
    size_t accented = inked(&titled, 0, 0, titled.width, titled.height - plain.height + 8), plainer;
    mbl_image_free(&titled);
    assert_int_equal(mbl_image_sheet(images, NULL, "e", 3, 2, 3, &titled), MBL_OK);
    plainer = inked(&titled, 0, 0, titled.width, titled.height - plain.height + 8);
    assert_true(accented > plainer && plainer > 0); /* the accent is drawn */
    mbl_image_free(&titled);
    assert_int_equal(mbl_image_sheet(images, NULL, "cut \xC3", 3, 2, 3, &titled), MBL_OK); /* no UTF-8 */
    mbl_image_free(&plain);
    mbl_image_free(&captioned);
    mbl_image_free(&titled);
    mbl_fail_quiet(1);
    images[1].width = 10;
    assert_int_equal(mbl_image_sheet(images, NULL, NULL, 3, 2, 3, &plain), MBL_ERR_ARG);
    assert_int_equal(mbl_image_sheet(images, NULL, NULL, 0, 2, 3, &plain), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    for (int i = 0; i < 3; i++)
        mbl_image_free(&images[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_become_bytes_and_back),  cmocka_unit_test(png_comes_back),
        cmocka_unit_test(damaged_png_is_refused),        cmocka_unit_test(absent_places_are_named),
        cmocka_unit_test(jpeg_sizes_are_plausible),      cmocka_unit_test(jpeg_from_several_threads),
        cmocka_unit_test(a_smaller_image_has_the_means), cmocka_unit_test(sheet_holds_images_and_captions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
