/* src/model/vae: parity with diffusers (tests/golden/make_vae.py), batches, memory counted and failing,
 * damaged folders.   ctest-backends: fake cuda
 */
#include "ops_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/safetensors.h"
#include "model/vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LATENTS = 1024, PIXELS = 8192 };
#define GOLDEN(name) MBL_SOURCE_DIR "/tests/golden/vae/" name

static int set_up(void **state) {
    (void)state;
    return open_ops_and_folder(test_backend(), 1);
}

/* What diffusers makes of latents [n,channels,height,width], and of its bytes again. */
typedef struct {
    size_t n, channels, height, width, each, pixels; /* of a sample's latents, of its pixels */
    double latents[LATENTS], encoded[LATENTS], image[PIXELS];
    uint8_t bytes[PIXELS];
} golden_t;

static golden_t *read_golden(const char *name) {
    static golden_t g;
    char path[512];
    mbl_st_t *st;
    snprintf(path, sizeof path, "%s/expected.safetensors", name);
    assert_int_equal(mbl_st_open(path, &st), MBL_OK);
    const mbl_st_entry_t *latents = mbl_st_find(st, "latents"), *bytes = mbl_st_find(st, "bytes");
    g.n = latents->dim[0];
    g.channels = latents->dim[1];
    g.height = latents->dim[2];
    g.width = latents->dim[3];
    g.each = g.channels * g.height * g.width;
    g.pixels = bytes->bytes / g.n;
    assert_in_range(g.n * g.each, 1, LATENTS);
    assert_in_range(g.n * g.pixels, 1, PIXELS);
    assert_int_equal(mbl_st_read_f64(st, "latents", g.latents, g.n * g.each), MBL_OK);
    assert_int_equal(mbl_st_read_f64(st, "image", g.image, g.n * g.pixels), MBL_OK);
    assert_int_equal(mbl_st_read_f64(st, "encoded", g.encoded, g.n * g.each), MBL_OK);
    memcpy(g.bytes, bytes->data, bytes->bytes);
    mbl_st_close(st);
    return &g;
}

/* Samples first.. of the golden latents in the type that a decoder of `type` takes. */
static mbl_status_t put_latents(const golden_t *g, mbl_dtype_t type, size_t first, size_t n,
                                mbl_tensor_t *out) {
    static float narrow[LATENTS];
    mbl_dtype_t st = mbl_dtype_stat(type);
    const double *from = g->latents + first * g->each;
    MBL_TRY(mbl_tensor_new(ops, st, out, 4, n, g->channels, g->height, g->width));
    for (size_t i = 0; i < n * g->each; i++)
        narrow[i] = (float)from[i];
    return mbl_tensor_upload(ops, out, st == MBL_F64 ? (const void *)from : narrow);
}

/* Decodes samples first.. in one batch of a decoder for max_n; pixels or bytes may be NULL. */
static mbl_status_t run(const char *name, mbl_dtype_t type, const golden_t *g, size_t max_n, size_t first,
                        size_t n, double *pixels, uint8_t *bytes) {
    mbl_vae_t *vae = NULL;
    mbl_vae_decoder_t *decoder = NULL;
    mbl_tensor_t latents = {0}, y = {0}, y64 = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_vae_open(ops, type, name, MBL_VAE_DECODER, &vae), done);
    const size_t scale = mbl_vae_scale(mbl_vae_config(vae));
    MBL_TRY_GOTO(mbl_vae_decoder_new(vae, max_n, g->height, g->width, &decoder), done);
    MBL_TRY_GOTO(put_latents(g, type, first, n, &latents), done);
    if (bytes)
        MBL_TRY_GOTO(mbl_vae_decode_bytes(decoder, &latents, bytes, NULL), done);
    if (pixels) {
        MBL_TRY_GOTO(mbl_tensor_new(ops, mbl_dtype_stat(type), &y, 4, n, g->height * scale, g->width * scale,
                                    (size_t)3),
                     done);
        MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &y64, 4, n, g->height * scale, g->width * scale, (size_t)3),
                     done);
        MBL_TRY_GOTO(mbl_vae_decode(decoder, &latents, &y), done);
        MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &y64, .src = &y), done);
        status = mbl_tensor_download(ops, &y64, pixels);
    }
done:
    mbl_tensor_free(ops, &latents);
    mbl_tensor_free(ops, &y);
    mbl_tensor_free(ops, &y64);
    mbl_vae_decoder_free(decoder);
    mbl_vae_close(vae);
    return status;
}

static void parity(const char *name) {
    static double pixels[PIXELS];
    static uint8_t bytes[PIXELS];
    static const struct {
        mbl_dtype_t type;
        double pixel, mean; /* furthest and on average */
        int byte;
    } types[] = {{MBL_F64, 1e-12, 1e-13, 0}, {MBL_F32, 1e-5, 2e-6, 0}, {MBL_BF16, 0.2, 0.03, 20}};
    const golden_t *g = read_golden(name);
    for (int t = 0; t < 3; t++) {
        double worst = 0, mean = 0;
        int off = 0;
        assert_int_equal(run(name, types[t].type, g, g->n, 0, g->n, pixels, bytes), MBL_OK);
        for (size_t i = 0; i < g->n * g->pixels; i++) {
            double value = (g->image[i] * 0.5 + 0.5) * 255; /* on an edge between two bytes either will do */
            bool edge = fabs(value - floor(value) - 0.5) < 2e-3;
            int apart = abs((int)bytes[i] - (int)g->bytes[i]) - (edge ? 1 : 0);
            assert_true(isfinite(pixels[i]));
            worst = fmax(worst, fabs(pixels[i] - g->image[i]));
            mean += fabs(pixels[i] - g->image[i]) / (double)(g->n * g->pixels);
            off = apart > off ? apart : off;
        }
        print_message("%s %s: pixels %.2g, on average %.2g, bytes %d\n", name + strlen(GOLDEN("")),
                      mbl_dtype_name(types[t].type), worst, mean, off);
        assert_near(worst, 0, types[t].pixel);
        assert_near(mean, 0, types[t].mean);
        assert_in_range(off, 0, types[t].byte);
    }
}

static void parity_square_f32(void **state) {
    (void)state;
    parity(GOLDEN("square_f32"));
}

static void parity_wide_f16(void **state) {
    (void)state;
    parity(GOLDEN("wide_f16"));
}

/* Without attention in the middle. */
static void parity_tall_bf16(void **state) {
    (void)state;
    parity(GOLDEN("tall_bf16"));
}

static void samples_are_independent(void **state) {
    (void)state;
    static double both[PIXELS], one[PIXELS];
    static uint8_t bytes[PIXELS], byte[PIXELS];
    const golden_t *g = read_golden(GOLDEN("wide_f16"));
    assert_int_equal(run(GOLDEN("wide_f16"), MBL_F32, g, 2, 0, 2, both, bytes), MBL_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(run(GOLDEN("wide_f16"), MBL_F32, g, 3, i, 1, one, byte), MBL_OK);
        assert_memory_equal(one, both + i * g->pixels, g->pixels * sizeof *one);
        assert_memory_equal(byte, bytes + i * g->pixels, g->pixels);
    }
    assert_memory_not_equal(both, both + g->pixels, g->pixels * sizeof *both);
}

/* A latent that is no number: its image is reported, and the others are as they were. */
static void broken_images_are_reported(void **state) {
    (void)state;
    static uint8_t bytes[PIXELS];
    const golden_t *g = read_golden(GOLDEN("square_f32"));
    mbl_vae_t *vae;
    mbl_vae_decoder_t *decoder;
    mbl_tensor_t latents;
    bool broken[2];
    golden_t bad = *g;
    bad.latents[g->each + 1] = NAN;
    assert_int_equal(mbl_vae_open(ops, MBL_F32, GOLDEN("square_f32"), MBL_VAE_DECODER, &vae), MBL_OK);
    assert_int_equal(mbl_vae_decoder_new(vae, 2, g->height, g->width, &decoder), MBL_OK);
    assert_int_equal(put_latents(&bad, MBL_F32, 0, 2, &latents), MBL_OK);
    assert_int_equal(mbl_vae_decode_bytes(decoder, &latents, bytes, broken), MBL_OK);
    assert_true(!broken[0] && broken[1]);
    assert_memory_equal(bytes, g->bytes, g->pixels);
    assert_int_equal(bytes[g->pixels], 0);
    mbl_tensor_free(ops, &latents);
    mbl_vae_decoder_free(decoder);
    mbl_vae_close(vae);
}

/* The buffers are counted beforehand, and the second decode allocates nothing. */
static void memory_is_counted(void **state) {
    (void)state;
    static uint8_t bytes[PIXELS];
    const golden_t *g = read_golden(GOLDEN("square_f32"));
    mbl_vae_t *vae;
    mbl_vae_decoder_t *decoder;
    mbl_tensor_t latents;
    mbl_vae_bytes_t one, two, narrow;
    assert_int_equal(mbl_vae_open(ops, MBL_F32, GOLDEN("square_f32"), MBL_VAE_DECODER, &vae), MBL_OK);
    assert_int_equal(mbl_vae_decoder_new(vae, 2, g->height, g->width, &decoder), MBL_OK);
    assert_int_equal(put_latents(g, MBL_F32, 0, 2, &latents), MBL_OK);
    assert_int_equal(mbl_vae_decode_bytes(decoder, &latents, bytes, NULL), MBL_OK);
    size_t count = mbl_mem_count();
    assert_int_equal(mbl_vae_decode_bytes(decoder, &latents, bytes, NULL), MBL_OK);
    assert_int_equal(mbl_mem_count(), count);
    const mbl_vae_config_t *config = mbl_vae_config(vae);
    assert_int_equal(mbl_vae_count(config, MBL_F32, 1, 64, 64, &one), MBL_OK);
    assert_int_equal(mbl_vae_count(config, MBL_F32, 2, 64, 64, &two), MBL_OK);
    assert_int_equal(mbl_vae_count(config, MBL_BF16, 2, 64, 64, &narrow), MBL_OK);
    assert_int_equal(two.buffers, 2 * one.buffers);
    assert_int_equal(two.weights, one.weights);
    assert_int_equal(narrow.weights, two.weights / 2);
    /* By hand: 128 x 128 pixels of 8 channels twice (after enlarging) and of 4 (8 at 64 x 64 is less), k and
     * v, latents twice, bytes, whether it is broken. */
    assert_int_equal(one.buffers,
                     4 * (2 * 128 * 128 * 8 + 128 * 128 * 4 + 2 * 64 * 64 * 8 + 2 * 64 * 64 * 4) +
                         128 * 128 * 3 + 4);
    /* One resolution without attention, where latents have more channels than anything after them. */
    const mbl_vae_config_t flat = {.latent_channels = 16,
                                   .blocks = 1,
                                   .block_out_channels = {4},
                                   .layers_per_block = 1,
                                   .norm_num_groups = 2,
                                   .scaling_factor = 1};
    assert_int_equal(mbl_vae_count(&flat, MBL_F32, 1, 64, 64, &one), MBL_OK);
    assert_int_equal(one.buffers, 4 * 64 * 64 * (2 * 16 + 4 + 2 * 16) + 64 * 64 * 3 + 4);
    mbl_tensor_free(ops, &latents);
    mbl_vae_decoder_free(decoder);
    mbl_vae_close(vae);
}

/* Stable Diffusion 3.5's decoder has 49,545,475 numbers in 138 tensors, each at a multiple of 32; at 512 x
 * 512 buffers are 2.5 images of 256 channels and little more. */
static void published_sizes(void **state) {
    (void)state;
    const size_t numbers = 49545475, image = (size_t)512 * 512 * 256;
    const mbl_vae_config_t config = {.latent_channels = 16,
                                     .blocks = 4,
                                     .block_out_channels = {128, 256, 512, 512},
                                     .layers_per_block = 2,
                                     .norm_num_groups = 32,
                                     .mid_block_add_attention = true,
                                     .scaling_factor = 1.5305,
                                     .shift_factor = 0.0609};
    mbl_vae_bytes_t bytes;
    assert_int_equal(mbl_vae_count(&config, MBL_F32, 1, 64, 64, &bytes), MBL_OK);
    assert_in_range(bytes.weights, 4 * numbers, 4 * (numbers + 138 * 32));
    assert_in_range(bytes.buffers, 4 * image * 5 / 2, 4 * image * 27 / 10);
}

static void refuses_wrong_calls(void **state) {
    (void)state;
    static uint8_t bytes[PIXELS];
    const golden_t *g = read_golden(GOLDEN("square_f32"));
    assert_int_equal(run(GOLDEN("square_f32"), MBL_F32, g, 1, 0, 2, NULL, bytes), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "latents [2,4,4,4] f32; expected [1..1,4,4,4] f32"));
    assert_int_equal(run(GOLDEN("square_f32"), MBL_F32, g, 0, 0, 1, NULL, bytes), MBL_ERR_ARG);
    golden_t bad = *g;
    bad.width = 5000;
    assert_int_equal(run(GOLDEN("square_f32"), MBL_F32, &bad, 1, 0, 1, NULL, bytes), MBL_ERR_ARG);
}

static void survives_failing_memory(void **state) {
    (void)state;
    static uint8_t bytes[PIXELS];
    const golden_t *g = read_golden(GOLDEN("square_f32"));
    assert_int_equal(run(GOLDEN("square_f32"), MBL_F32, g, 2, 0, 2, NULL, bytes), MBL_OK);
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = run(GOLDEN("square_f32"), MBL_F32, g, 2, 0, 2, NULL, bytes);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK)
            assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 10, 2000);
}

/* ---- encoder ---- */

/* Encodes the golden bytes of samples first.. in one batch of an encoder for max_n. */
static mbl_status_t encode(const char *name, mbl_dtype_t type, const golden_t *g, size_t max_n, size_t first,
                           size_t n, double *encoded) {
    mbl_vae_t *vae = NULL;
    mbl_vae_encoder_t *encoder = NULL;
    mbl_tensor_t y = {0}, y64 = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_vae_open(ops, type, name, MBL_VAE_ENCODER, &vae), done);
    const size_t scale = mbl_vae_scale(mbl_vae_config(vae));
    MBL_TRY_GOTO(mbl_vae_encoder_new(vae, max_n, g->height * scale, g->width * scale, &encoder), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, mbl_dtype_stat(type), &y, 4, n, g->channels, g->height, g->width), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &y64, 4, n, g->channels, g->height, g->width), done);
    MBL_TRY_GOTO(mbl_vae_encode(encoder, g->bytes + first * g->pixels, n, &y), done);
    MBL_TRY_GOTO(MBL_OP(ops, convert, .dst = &y64, .src = &y), done);
    status = mbl_tensor_download(ops, &y64, encoded);
done:
    mbl_tensor_free(ops, &y);
    mbl_tensor_free(ops, &y64);
    mbl_vae_encoder_free(encoder);
    mbl_vae_close(vae);
    return status;
}

static void encoder_parity(void **state) {
    (void)state;
    static double encoded[LATENTS];
    static const char *const names[] = {GOLDEN("square_f32"), GOLDEN("wide_f16"), GOLDEN("tall_bf16")};
    static const struct {
        mbl_dtype_t type;
        double tolerance;
    } types[] = {{MBL_F64, 1e-12}, {MBL_F32, 1e-5}, {MBL_BF16, 0.1}};
    for (int i = 0; i < 3; i++) {
        const golden_t *g = read_golden(names[i]);
        for (int t = 0; t < 3; t++) {
            double worst = 0;
            assert_int_equal(encode(names[i], types[t].type, g, g->n, 0, g->n, encoded), MBL_OK);
            for (size_t j = 0; j < g->n * g->each; j++) {
                assert_true(isfinite(encoded[j]));
                worst = fmax(worst, fabs(encoded[j] - g->encoded[j]));
            }
            print_message("%s %s: latents %.2g\n", names[i] + strlen(GOLDEN("")),
                          mbl_dtype_name(types[t].type), worst);
            assert_near(worst, 0, types[t].tolerance);
        }
    }
}

static void encoder_is_careful(void **state) {
    (void)state;
    static double both[LATENTS], one[LATENTS];
    const char *name = GOLDEN("wide_f16");
    golden_t *g = read_golden(name);
    assert_int_equal(encode(name, MBL_F32, g, 2, 0, 2, both), MBL_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(encode(name, MBL_F32, g, 3, i, 1, one), MBL_OK);
        assert_memory_equal(one, both + i * g->each, g->each * sizeof *one);
    }
    assert_int_equal(encode(name, MBL_F32, g, 1, 0, 2, both), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "2 images; expected 1 to 1"));
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = encode(name, MBL_F32, g, 2, 0, 2, both);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK)
            assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 10, 2000);
}

/* Each half is for its own work, and images are whole latents. */
static void halves_are_kept_apart(void **state) {
    (void)state;
    mbl_vae_t *decoder, *encoder;
    mbl_vae_decoder_t *d;
    mbl_vae_encoder_t *e;
    assert_int_equal(mbl_vae_open(ops, MBL_F32, GOLDEN("square_f32"), MBL_VAE_DECODER, &decoder), MBL_OK);
    assert_int_equal(mbl_vae_open(ops, MBL_F32, GOLDEN("square_f32"), MBL_VAE_ENCODER, &encoder), MBL_OK);
    assert_int_equal(mbl_vae_decoder_new(encoder, 1, 4, 4, &d), MBL_ERR_ARG);
    assert_int_equal(mbl_vae_encoder_new(decoder, 1, 8, 8, &e), MBL_ERR_ARG);
    assert_int_equal(mbl_vae_encoder_new(encoder, 1, 8, 7, &e), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "images of 8 x 7; expected multiples of 2"));
    mbl_vae_close(decoder);
    mbl_vae_close(encoder);
}

/* ---- tiles ---- */

/* Latents [n,channels,height,width] that are larger than the tiles they are decoded in. */
typedef struct {
    size_t n, height, width, pixels; /* of an image */
    float latents[2 * LATENTS];
    uint8_t bytes[3 * PIXELS];
} large_t;

static const large_t *read_large(const char *name) {
    static large_t g;
    char path[512];
    mbl_st_t *st;
    snprintf(path, sizeof path, "%s/expected.safetensors", name);
    assert_int_equal(mbl_st_open(path, &st), MBL_OK);
    const mbl_st_entry_t *many = mbl_st_find(st, "many"), *tiled = mbl_st_find(st, "tiled");
    g.n = many->dim[0];
    g.height = many->dim[2];
    g.width = many->dim[3];
    g.pixels = tiled->bytes / g.n;
    assert_in_range(many->bytes / 4, 1, 2 * LATENTS);
    assert_in_range(tiled->bytes, 1, 3 * PIXELS);
    assert_int_equal(mbl_st_read_f32(st, "many", g.latents, many->bytes / 4), MBL_OK);
    memcpy(g.bytes, tiled->data, tiled->bytes);
    mbl_st_close(st);
    return &g;
}

static mbl_status_t decode_tiled(const char *name, const large_t *g, size_t tile, uint8_t *bytes,
                                 bool *broken) {
    mbl_vae_t *vae = NULL;
    mbl_vae_tiler_t *tiler = NULL;
    mbl_tensor_t latents = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_vae_open(ops, MBL_F32, name, MBL_VAE_DECODER, &vae), done);
    MBL_TRY_GOTO(mbl_vae_tiler_new(vae, g->height, g->width, tile, &tiler), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &latents, 4, g->n, mbl_vae_config(vae)->latent_channels,
                                g->height, g->width),
                 done);
    MBL_TRY_GOTO(mbl_tensor_upload(ops, &latents, g->latents), done);
    status = mbl_vae_tiler_decode_bytes(tiler, &latents, bytes, broken);
done:
    mbl_tensor_free(ops, &latents);
    mbl_vae_tiler_free(tiler);
    mbl_vae_close(vae);
    return status;
}

/* Bytes on an edge may differ by one; blended in another way, many differ by more. */
static void tiles_parity(void **state) {
    (void)state;
    static uint8_t bytes[3 * PIXELS];
    static const char *const names[] = {GOLDEN("square_f32"), GOLDEN("wide_f16"), GOLDEN("tall_bf16")};
    for (int i = 0; i < 3; i++) {
        const large_t *g = read_large(names[i]);
        size_t differ = 0, by_more = 0;
        assert_int_equal(decode_tiled(names[i], g, 4, bytes, NULL), MBL_OK);
        for (size_t j = 0; j < g->n * g->pixels; j++) {
            differ += bytes[j] != g->bytes[j];
            by_more += abs((int)bytes[j] - (int)g->bytes[j]) > 1;
        }
        print_message("%s in tiles: %zu of %zu bytes differ\n", names[i] + strlen(GOLDEN("")), differ,
                      g->n * g->pixels);
        assert_int_equal(by_more, 0);
        assert_in_range(differ, 0, g->n * g->pixels / 1000);
    }
}

static void tiles_are_careful(void **state) {
    (void)state;
    static uint8_t bytes[3 * PIXELS];
    const char *name = GOLDEN("square_f32");
    large_t g = *read_large(name);
    assert_int_equal(decode_tiled(name, &g, 8, bytes, NULL), MBL_OK); /* other tiles, another image */
    assert_memory_not_equal(bytes, g.bytes, g.pixels);
    assert_int_equal(decode_tiled(name, &g, 6, bytes, NULL), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "tiles of 6 latents; expected a multiple of 4"));
    assert_int_equal(decode_tiled(name, &g, 12, bytes, NULL), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "expected a side larger than a tile of 12"));
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = decode_tiled(name, &g, 4, bytes, NULL);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK)
            assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 10, 2000);
    bool broken[2];
    assert_int_equal(g.n, 2);
    g.latents[g.height * g.width - 1] = NAN;
    assert_int_equal(decode_tiled(name, &g, 4, bytes, broken), MBL_OK);
    assert_true(broken[0] && !broken[1]);
    assert_memory_equal(bytes + g.pixels, g.bytes + g.pixels, g.pixels);
}

/* ---- folders ---- */

/* A copy of the golden folder with one value of its config.json changed (NULL: taken out). */
static void copy_golden(const char *key, const char *value) {
    char path[512];
    size_t size;
    char *weights = read_whole(GOLDEN("square_f32/diffusion_pytorch_model.safetensors"), &size);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    write_whole(path, weights, size);
    free(weights);
    json_t *root = read_json(GOLDEN("square_f32/config.json"));
    if (value)
        assert_int_equal(json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    else
        json_object_del(root, key);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(mbl_json_write(path, root), MBL_OK);
    json_decref(root);
}

static void expect_open_fails(mbl_status_t status, const char *part) {
    mbl_vae_t *vae;
    mbl_status_t got = mbl_vae_open(ops, MBL_F32, folder, MBL_VAE_DECODER, &vae);
    assert_failed(got, status, part);
}

static void damaged_folders(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *part;
        mbl_status_t status;
    } cases[] = {
        {"_class_name", "\"AutoencoderTiny\"",
         "config.json: _class_name: found \"AutoencoderTiny\"; expected", MBL_ERR_CONFIG},
        {"act_fn", "\"relu\"", "act_fn: found \"relu\"; expected \"silu\"", MBL_ERR_CONFIG},
        {"in_channels", "4", "in_channels: 4; expected", MBL_ERR_CONFIG},
        {"latent_channels", "\"many\"", "latent_channels: \"many\"; expected", MBL_ERR_CONFIG},
        {"scaling_factor", "0", "scaling_factor: 0; expected", MBL_ERR_CONFIG},
        {"use_post_quant_conv", "true", "use_post_quant_conv: found true; expected false", MBL_ERR_CONFIG},
        {"use_quant_conv", NULL, "use_quant_conv: found nothing; expected false", MBL_ERR_CONFIG},
        {"mid_block_add_attention", "1", "mid_block_add_attention: found 1; expected true or false",
         MBL_ERR_CONFIG},
        {"latents_mean", "[0.5]", "latents_mean: found [0.5]; expected null", MBL_ERR_CONFIG},
        {"up_block_types", "[\"UpDecoderBlock2D\", \"AttnUpDecoderBlock2D\"]",
         "\"UpDecoderBlock2D\" for each of the 2 block_out_channels", MBL_ERR_CONFIG},
        {"down_block_types", NULL, "down_block_types: found nothing", MBL_ERR_CONFIG},
        {"block_out_channels", "[4, 7]", "found [4,7]; expected multiples of norm_num_groups",
         MBL_ERR_CONFIG},
        {"block_out_channels", "[]", "found []; expected a list of 1 to 6", MBL_ERR_CONFIG},
        {"block_out_channels", "[8, 8]", "found shape [4,8,3,3]; expected [8,8,3,3]", MBL_ERR_FORMAT},
        {"latent_channels", "5", "tensor decoder.conv_in.weight: found shape [8,4,3,3]; expected [8,5,3,3]",
         MBL_ERR_FORMAT},
        {"layers_per_block", "2",
         "tensor decoder.up_blocks.0.resnets.2.norm1.weight: missing; expected one of shape [8]",
         MBL_ERR_FORMAT},
        {"mid_block_add_attention", "false", "decoder.mid_block.attentions.0.group_norm.bias",
         MBL_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        copy_golden(cases[i].key, cases[i].value);
        expect_open_fails(cases[i].status, cases[i].part);
    }
}

static void truncated_weights(void **state) {
    (void)state;
    char path[512];
    size_t size;
    copy_golden("act_fn", "\"silu\"");
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    char *weights = read_whole(path, &size);
    write_whole(path, weights, size - 4);
    free(weights);
    expect_open_fails(MBL_ERR_FORMAT, "diffusion_pytorch_model.safetensors");
}

/* Keys that diffusers has a value for may be left out, and what only its own classes read is not looked at.
 */
static void lenient_configs(void **state) {
    (void)state;
    mbl_vae_config_t config;
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    copy_golden("mid_block_add_attention", NULL); /* as SD3 is published */
    assert_int_equal(mbl_vae_config_read(path, &config), MBL_OK);
    assert_true(config.mid_block_add_attention);
    copy_golden("shift_factor", "null");
    assert_int_equal(mbl_vae_config_read(path, &config), MBL_OK);
    assert_near(config.shift_factor, 0, 0);
    assert_near(config.scaling_factor, 1.5305, 0);
    assert_int_equal(config.latent_channels, 4);
    assert_int_equal(mbl_vae_scale(&config), 2);
    copy_golden("sample_size", "[512, 512]");
    assert_int_equal(mbl_vae_config_read(path, &config), MBL_OK);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity_square_f32),
        cmocka_unit_test(parity_wide_f16),
        cmocka_unit_test(parity_tall_bf16),
        cmocka_unit_test(samples_are_independent),
        cmocka_unit_test(broken_images_are_reported),
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(refuses_wrong_calls),
        cmocka_unit_test(survives_failing_memory),
        cmocka_unit_test(damaged_folders),
        cmocka_unit_test(truncated_weights),
        cmocka_unit_test(lenient_configs),
        cmocka_unit_test(published_sizes),
        cmocka_unit_test(encoder_parity),
        cmocka_unit_test(encoder_is_careful),
        cmocka_unit_test(halves_are_kept_apart),
        cmocka_unit_test(tiles_parity),
        cmocka_unit_test(tiles_are_careful),
    };
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
