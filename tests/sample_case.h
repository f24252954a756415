/* Images of marble sample, and what they say of themselves. */
#ifndef MBL_TESTS_SAMPLE_CASE_H
#define MBL_TESTS_SAMPLE_CASE_H

#include "small_run.h"

#include "data/image.h"

#include <png.h>

/* The text of a PNG file of folder under a key; fails without one. */
static inline char *text_of(const char *file, const char *key) {
    char path[1024], *found = NULL;
    png_textp texts;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, in);
    png_read_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    int n = png_get_text(png, info, &texts, NULL);
    for (int i = 0; i < n; i++)
        if (strcmp(texts[i].key, key) == 0)
            found = strdup(texts[i].text);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(in);
    if (!found)
        fail_msg("%s has no text %s", file, key);
    return found;
}

static inline void check_text(const char *file, const char *key, const char *expected) {
    char *text = text_of(file, key);
    assert_string_equal(text, expected);
    free(text);
}

/* build/marble sample of one image into folder/OUT; the exit code. */
static inline int try_sample(const char *out, const char *more) {
    char command[4096];
    snprintf(
        command, sizeof command,
        "%s/marble sample --prompt 'three blue circles' --steps 3 --threads 1 --out %s/%s %s >%s/%s.log 2>&1",
        MBL_BINARY_DIR, folder, out, more, folder, out);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void sample(const char *out, const char *more) {
    assert_int_equal(try_sample(out, more), 0);
}

static inline void same_image(const char *a, const char *b, bool same) {
    char path[2][1024];
    mbl_image_t image[2];
    const char *out[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s/000.png", folder, out[i]);
        assert_int_equal(mbl_image_read_png(path[i], &image[i]), MBL_OK);
    }
    assert_int_equal(memcmp(image[0].rgb, image[1].rgb, 3 * image[0].width * image[0].height) == 0, same);
    mbl_image_free(&image[0]);
    mbl_image_free(&image[1]);
}

#endif
