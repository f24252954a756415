/* src/model/pipeline: a fresh folder saved and opened again, conditions, images, the digest, damaged
 * folders, failing memory. */
#include "mmdit_new.h"
#include "ops_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/signs/signs.h"
#include "model/text/clip.h"
#include "model/pipeline.h"
#include "model/safetensors.h"
#include "model/text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 8, TOKENS = 12, HIDDEN = 32, JOINT = 40, POOLED = 24, IMAGE = 3 * SIDE * SIDE };
static const mbl_mmdit_config_t small = {.sample_size = SIDE,
                                         .patch_size = 4,
                                         .in_channels = 3,
                                         .out_channels = 3,
                                         .num_layers = 2,
                                         .attention_head_dim = 16,
                                         .num_attention_heads = 2,
                                         .joint_attention_dim = JOINT,
                                         .caption_projection_dim = 32,
                                         .pooled_projection_dim = POOLED,
                                         .pos_embed_max_size = 4,
                                         .qk_norm = true};

static void shell(const char *format) {
    char command[1024];
    snprintf(command, sizeof command, format, folder, folder, folder);
    if (system(command) != 0)
        fail_msg("%s failed", command);
}

/* A whole folder: the fixed parts, and a fresh transformer. */
static void make_model(void) {
    const char *words[256];
    size_t n = 0;
    while (n < 256 && (words[n] = mbl_signs_word(n)))
        n++;
    assert_in_range(n, 20, 255);
    shell("rm -rf '%s'/*");
    assert_int_equal(mbl_pipeline_create(folder, words, n, TOKENS, HIDDEN, 2, POOLED, 7), MBL_OK);
    mbl_dit_t *model;
    mbl_tensor_t master;
    assert_int_equal(new_model(ops, MBL_F32, &small, 3, &model), MBL_OK);
    size_t count = mbl_tensor_count(mbl_dit_weights(model));
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &master, 1, count), MBL_OK);
    assert_int_equal(mbl_dit_get_weights(model, &master), MBL_OK);
    assert_int_equal(mbl_dit_save(model, master.data, MBL_F32, in_folder("transformer")), MBL_OK);
    mbl_tensor_free(ops, &master);
    mbl_dit_close(model);
}

static int set_up(void **state) {
    (void)state;
    return open_ops_and_folder("check", 2);
}

static void fresh_folder_opens(void **state) {
    (void)state;
    mbl_pipeline_t *p;
    size_t c, h, w;
    make_model();
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p), MBL_OK);
    assert_int_equal(mbl_pipeline_context_tokens(p), TOKENS);
    assert_near(mbl_pipeline_shift(p), 3, 0);
    mbl_pipeline_latent(p, &c, &h, &w);
    assert_true(c == 3 && h == SIDE && w == SIDE);
    mbl_pipeline_image_size(p, &h, &w);
    assert_true(h == SIDE && w == SIDE);
    mbl_pipeline_close(p);
}

/* A folder with both CLIP encoders and T5 that generates pixels: all of them make the conditions, before and
 * after they were taken off the device, and `text` says how many tokens T5 reads. */
static void several_text_encoders(void **state) {
    (void)state;
    static const char *const prompts[] = {"", "a red sign that says \"K7\""};
    enum { CLIP = 20, WIDTH = 40, LAST = 20 };
    mbl_mmdit_config_t config = small;
    mbl_pipeline_t *p;
    mbl_conditions_t made;
    mbl_st_t *st;
    static float context[5 * 48 * WIDTH], pooled[5 * LAST];
    make_model();
    shell("cp -r '%s'/scheduler '%s'/kept && cp -r '" MBL_SOURCE_DIR "/tests/golden/prompt' '%s'/several");
    shell("mv '%s'/kept '%s'/several/scheduler && rm -rf '%s'/several/vae");
    config.pooled_projection_dim = LAST;
    assert_int_equal(new_pipeline(ops, MBL_F32, in_folder("several"), &config, 3, &p), MBL_OK);
    assert_int_equal(mbl_pipeline_context_tokens(p), CLIP + MBL_TEXT_TOKENS);
    mbl_pipeline_close(p);

    mbl_tensor_t master;
    mbl_dit_t *model;
    assert_int_equal(new_model(ops, MBL_F32, &config, 3, &model), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &master, 1, mbl_tensor_count(mbl_dit_weights(model))),
                     MBL_OK);
    assert_int_equal(mbl_dit_get_weights(model, &master), MBL_OK);
    assert_int_equal(mbl_dit_save(model, master.data, MBL_F32, in_folder("several/transformer")), MBL_OK);
    mbl_tensor_free(ops, &master);
    mbl_dit_close(model);

    const mbl_text_options_t text = {.max_tokens = 28};
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, in_folder("several"), &text, &p), MBL_OK);
    assert_int_equal(mbl_pipeline_context_tokens(p), CLIP + 28);
    assert_int_equal(mbl_st_open(MBL_SOURCE_DIR "/tests/golden/prompt/expected.safetensors", &st), MBL_OK);
    assert_int_equal(mbl_st_read_f32(st, "context", context, sizeof context / sizeof *context), MBL_OK);
    assert_int_equal(mbl_st_read_f32(st, "pooled", pooled, sizeof pooled / sizeof *pooled), MBL_OK);
    mbl_st_close(st);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(mbl_pipeline_encode(p, prompts, 2, &made), MBL_OK);
        assert_near(relative_error_f32(made.context.data, context, 2 * 48 * WIDTH), 0, 1e-5);
        assert_near(relative_error_f32(made.pooled.data, pooled, 2 * LAST), 0, 1e-5);
        mbl_conditions_free(ops, &made);
        mbl_pipeline_release_text(p);
    }
    size_t tokens;
    assert_int_equal(mbl_text_count_tokens(in_folder("several"), 128, &tokens), MBL_OK);
    assert_int_equal(tokens, CLIP + 128);
    assert_int_equal(mbl_text_count_tokens(folder, 128, &tokens), MBL_OK);
    assert_int_equal(tokens, TOKENS);
    mbl_pipeline_close(p);
    config.joint_attention_dim = 41;
    assert_int_equal(new_pipeline(ops, MBL_F32, in_folder("several"), &config, 3, &p), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "text_encoder_3/: d_model: 40; expected the transformer's"));
}

static void sentences_are_words(void **state) {
    (void)state;
    mbl_tokenizer_t *t;
    int32_t ids[TOKENS];
    size_t end;
    make_model();
    assert_int_equal(mbl_tokenizer_open(in_folder("tokenizer"), &t), MBL_OK);
    for (size_t i = 0; mbl_signs_word(i); i++) {
        assert_int_equal(mbl_tokenizer_encode(t, mbl_signs_word(i), TOKENS, ids, &end), MBL_OK);
        if (end != 2)
            fail_msg("%s: %zu tokens, expected 1", mbl_signs_word(i), end - 1);
    }
    assert_int_equal(mbl_tokenizer_encode(t, "a red sign that says \"K7\"", TOKENS, ids, &end), MBL_OK);
    assert_int_equal(end, 10); /* five words, two quotes, two glyphs */
    mbl_tokenizer_close(t);
}

static void conditions(void **state) {
    (void)state;
    mbl_pipeline_t *p;
    mbl_conditions_t all, one;
    char text[100][40];
    const char *prompts[100];
    make_model();
    for (int i = 0; i < 100; i++) { /* more than are encoded at once */
        snprintf(text[i], sizeof text[i], "%s blue circles %d", i % 3 ? "three" : "two", i);
        prompts[i] = text[i];
    }
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p), MBL_OK);
    assert_int_equal(mbl_pipeline_encode(p, prompts, 100, &all), MBL_OK);
    assert_int_equal(all.n, 100);
    const float *context = all.context.data, *pooled = all.pooled.data;
    for (size_t i = 0; i < 100; i += 33) {
        assert_int_equal(mbl_pipeline_encode(p, prompts + i, 1, &one), MBL_OK);
        assert_near(relative_error_f32(one.context.data, context + i * TOKENS * JOINT, TOKENS * JOINT), 0,
                    1e-6);
        assert_near(relative_error_f32(one.pooled.data, pooled + i * POOLED, POOLED), 0, 1e-6);
        mbl_conditions_free(ops, &one);
    }
    for (size_t row = 0; row < 100 * TOKENS; row++) {
        double square = 0;
        for (size_t j = 0; j < JOINT; j++) {
            float x = context[row * JOINT + j];
            square += (double)x * (double)x;
            if (j >= HIDDEN)
                assert_true(x == 0);
        }
        assert_true(square > 1);
    }
    const uint32_t index[3] = {99, 5, 99};
    mbl_conditions_t some, first;
    assert_int_equal(mbl_pipeline_conditions(p, 3, &some), MBL_OK);
    assert_int_equal(mbl_conditions_gather(ops, &all, index, &some), MBL_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_memory_equal((float *)some.context.data + i * TOKENS * JOINT,
                            context + index[i] * TOKENS * JOINT, TOKENS * JOINT * sizeof(float));
        assert_memory_equal((float *)some.pooled.data + i * POOLED, pooled + index[i] * POOLED,
                            POOLED * sizeof(float));
    }
    const uint32_t beyond[1] = {100};
    first = mbl_conditions_rows(&some, 0, 1);
    assert_int_equal(mbl_conditions_gather(ops, &all, beyond, &first), MBL_ERR_ARG);
    mbl_conditions_free(ops, &some);
    mbl_conditions_free(ops, &all);
    mbl_pipeline_close(p);
}

static void images(void **state) {
    (void)state;
    mbl_pipeline_t *p;
    mbl_tensor_t latents;
    uint8_t rgb[2 * IMAGE];
    make_model();
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p), MBL_OK);
    assert_int_equal(
        mbl_tensor_new(ops, MBL_F32, &latents, 4, (size_t)2, (size_t)3, (size_t)SIDE, (size_t)SIDE), MBL_OK);
    float *x = latents.data;
    const float values[] = {-1, 1, 0, -3, 7, NAN, INFINITY, -INFINITY, -0.5f, 0.2f};
    const uint8_t want[] = {0, 255, 128, 0, 255, 0, 255, 0, 64, 153};
    for (int i = 0; i < 10; i++)
        x[IMAGE + SIDE * SIDE + i] = values[i]; /* second image, green */
    bool broken[2];
    assert_int_equal(mbl_pipeline_decode(p, &latents, rgb, broken), MBL_OK);
    assert_false(broken[0]);
    assert_true(broken[1]);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(rgb[IMAGE + 3 * i + 1], want[i]);
        assert_int_equal(rgb[IMAGE + 3 * i], 128);
        assert_int_equal(rgb[3 * i + 1], 128);
    }
    mbl_tensor_free(ops, &latents);
    mbl_pipeline_close(p);
}

static void digest_is_of_the_files(void **state) {
    (void)state;
    mbl_pipeline_t *p;
    char first[65];
    make_model();
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p), MBL_OK);
    strcpy(first, mbl_pipeline_digest(p));
    assert_int_equal(strspn(first, "0123456789abcdef"), 64);
    mbl_pipeline_close(p);
    assert_int_equal(mbl_pipeline_open(ops, MBL_BF16, folder, NULL, &p), MBL_OK);
    assert_string_equal(mbl_pipeline_digest(p), first);
    mbl_pipeline_close(p);
    size_t size;
    char *bytes = read_whole(in_folder("transformer/diffusion_pytorch_model.safetensors"), &size);
    bytes[size - 3] ^= 1;
    write_whole(in_folder("transformer/diffusion_pytorch_model.safetensors"), bytes, size);
    free(bytes);
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p), MBL_OK);
    assert_string_not_equal(mbl_pipeline_digest(p), first);
    mbl_pipeline_close(p);
    char seed_1[65];
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &small, 1, &p), MBL_OK);
    strcpy(seed_1, mbl_pipeline_digest(p));
    mbl_pipeline_close(p);
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &small, 2, &p), MBL_OK);
    assert_string_not_equal(mbl_pipeline_digest(p), seed_1);
    mbl_pipeline_close(p);
}

static void damaged_folders(void **state) {
    (void)state;
    static const struct {
        const char *damage, *part;
        mbl_status_t status;
    } cases[] = {
        {"rm '%s/model_index.json'", "model_index.json: cannot be opened", MBL_ERR_IO},
        {"sed -i s/StableDiffusion3/Flux/ '%s/model_index.json'", "_class_name: FluxPipeline",
         MBL_ERR_UNSUPPORTED},
        {"rm -r '%s/tokenizer'", "tokenizer/vocab.json", MBL_ERR_IO},
        {"rm -r '%s/text_encoder'", "text_encoder/config.json", MBL_ERR_IO},
        {"rm -r '%s/scheduler'", "scheduler/scheduler_config.json", MBL_ERR_IO},
        {"rm -r '%s/transformer'", "transformer/config.json", MBL_ERR_IO},
        {"sed -i 's/3.0/-1/' '%s/scheduler/scheduler_config.json'", "shift: -1", MBL_ERR_CONFIG},
        {"sed -i 's/\"shift\"/\"use_dynamic_shifting\": true, &/' '%s/scheduler/scheduler_config.json'",
         "use_dynamic_shifting", MBL_ERR_UNSUPPORTED},
        {"sed -i 's/\"shift\"/\"use_karras_sigmas\": true, &/' '%s/scheduler/scheduler_config.json'",
         "use_karras_sigmas: true", MBL_ERR_UNSUPPORTED},
        {"sed -i 's/\"shift\"/\"shift_terminal\": 0.02, &/' '%s/scheduler/scheduler_config.json'",
         "shift_terminal: 0.02; expected null", MBL_ERR_UNSUPPORTED},
        {"sed -i 's/1000/500/' '%s/scheduler/scheduler_config.json'",
         "num_train_timesteps: 500; expected 1000", MBL_ERR_UNSUPPORTED},
        {"sed -i 's/FlowMatchEuler/DDIM/' '%s/scheduler/scheduler_config.json'",
         "_class_name: DDIMDiscreteScheduler; expected FlowMatchEulerDiscreteScheduler", MBL_ERR_UNSUPPORTED},
        {"sed -i 's/length\": 12/length\": 13/' '%s/tokenizer/tokenizer_config.json'", "model_max_length: 13",
         MBL_ERR_CONFIG},
        {"sed -i '1s/{/{\"another\": 99999,/' '%s/tokenizer/vocab.json'", "tokenizer/ has 100000 tokens",
         MBL_ERR_CONFIG},
        {"truncate -s -1 '%s/transformer/diffusion_pytorch_model.safetensors'", "transformer",
         MBL_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mbl_pipeline_t *p = NULL;
        make_model();
        shell(cases[i].damage);
        size_t live = mbl_mem_live();
        mbl_status_t status = mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p);
        if (status != cases[i].status || !strstr(mbl_fail_message(), cases[i].part))
            fail_msg("%s: %s \"%s\", expected %s with \"%s\"", cases[i].damage, mbl_status_name(status),
                     mbl_fail_message(), mbl_status_name(cases[i].status), cases[i].part);
        assert_int_equal(mbl_mem_live(), live);
    }
    make_model();
    mbl_pipeline_t *p;
    mbl_mmdit_config_t other = small;
    other.joint_attention_dim = HIDDEN - 1;
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &other, 1, &p), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "joint_attention_dim 31"));
    other = small;
    other.pooled_projection_dim = POOLED + 1;
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &other, 1, &p), MBL_ERR_CONFIG);
    other = small;
    other.in_channels = other.out_channels = 4;
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &other, 1, &p), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "4 channels in, 4 out; expected 3, red, green and blue"));
    char missing[300];
    snprintf(missing, sizeof missing, "%s/nowhere", folder);
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, missing, NULL, &p), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "no such folder"));
}

static void survives_failing_memory(void **state) {
    (void)state;
    static const char *const prompts[] = {"three blue circles", "a red sign"};
    mbl_pipeline_t *warm;
    mbl_conditions_t all;
    make_model();
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, folder, NULL, &warm), MBL_OK);
    assert_int_equal(mbl_pipeline_encode(warm, prompts, 2, &all),
                     MBL_OK); /* the backend keeps what it prepared */
    mbl_conditions_free(ops, &all);
    mbl_pipeline_close(warm);
    for (int fresh = 0; fresh < 2; fresh++) {
        size_t live = mbl_mem_live(), n = 1;
        for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
            mbl_pipeline_t *p = NULL;
            all = (mbl_conditions_t){0};
            mbl_mem_fail_at(n);
            status = fresh ? new_pipeline(ops, MBL_F32, folder, &small, 1, &p)
                           : mbl_pipeline_open(ops, MBL_F32, folder, NULL, &p);
            if (status == MBL_OK) {
                status = mbl_pipeline_encode(p, prompts, 2, &all);
                mbl_mem_fail_at(0);
                mbl_conditions_free(ops, &all);
            }
            mbl_mem_fail_at(0);
            mbl_pipeline_close(p);
            assert_true(status == MBL_OK || status == MBL_ERR_MEM);
            if (status != MBL_OK)
                assert_int_equal(mbl_mem_live(), live);
        }
        assert_in_range(n, 100, 5000);
    }
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = mbl_pipeline_create(folder, prompts, 0, TOKENS, HIDDEN, 1, POOLED, 7);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
}

int main(int argc, char **argv) {
    /* With a folder as operand it makes the fixed parts there and stops (tests/parity/fresh_folder.py). */
    if (argc > 1) {
        const char *words[256];
        size_t n = 0;
        while (n < 256 && (words[n] = mbl_signs_word(n)))
            n++;
        return mbl_pipeline_create(argv[1], words, n, TOKENS, HIDDEN, 2, POOLED, 7) != MBL_OK;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_folder_opens),
        cmocka_unit_test(several_text_encoders),
        cmocka_unit_test(sentences_are_words),
        cmocka_unit_test(conditions),
        cmocka_unit_test(images),
        cmocka_unit_test(digest_is_of_the_files),
        cmocka_unit_test(damaged_folders),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
