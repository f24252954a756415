/* marble sample with guidance, from given noise, to latents; evaluations with guidance. */
#include "sample_case.h"

#include "model/safetensors.h"

#define MODEL "--model " MBL_SOURCE_DIR "/deploy/examples/signs-base "

/* A path in folder. */
static const char *at(const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static void draw(const char *out, const char *format, const char *file) {
    char more[1024];
    snprintf(more, sizeof more, MODEL "%s %s", format, file);
    sample(out, more);
}

/* Refused with these words; nothing is drawn. */
static void refused(int code, const char *more, const char *words) {
    assert_int_equal(try_sample("refused", more), code);
    check_times("refused.log", words, 1);
}

/* The noise that comes out draws the same image when it goes in; no seed is named then. */
static void noise_and_latents(void **state) {
    mbl_st_t *st;
    (void)state;
    draw("plain", "", "");
    draw("first", "--latents", at("first.st"));
    draw("again", "--seed 9 --noise", at("first.st"));
    same_image("plain", "first", true);
    same_image("first", "again", true);
    check_text("again/000.png", "noise", at("first.st"));
    assert_int_equal(mbl_st_open(at("first.st"), &st), MBL_OK);
    assert_int_equal(mbl_st_count(st), 2);
    const mbl_st_entry_t *noise = mbl_st_find(st, "noise"), *latents = mbl_st_find(st, "latents");
    assert_true(noise && latents && noise->ndim == 4 && latents->ndim == 4);
    const size_t dim[4] = {1, 3, 32, 32};
    assert_memory_equal(noise->dim, dim, sizeof dim);
    assert_memory_equal(latents->dim, dim, sizeof dim);
    mbl_st_close(st);
}

static void noise_that_does_not_fit(void **state) {
    static const float none[12] = {0};
    char more[1024];
    (void)state;
    const mbl_st_tensor_t small = {"noise", MBL_F32, 4, {1, 3, 2, 2}, none},
                          other = {"x", MBL_F32, 1, {12}, none};
    assert_int_equal(mbl_st_write(at("small.st"), &small, 1, NULL), MBL_OK);
    assert_int_equal(mbl_st_write(at("other.st"), &other, 1, NULL), MBL_OK);
    snprintf(more, sizeof more, MODEL "--noise %s", at("small.st"));
    refused(1, more, "noise: shape [1, 3, 2, 2]; expected [1, 3, 32, 32]");
    snprintf(more, sizeof more, MODEL "--noise %s", at("other.st"));
    refused(1, more, "no tensor \"noise\" among 1; expected one of shape [1, 3, 32, 32]");
}

static void guidance_changes_images_and_is_written_down(void **state) {
    (void)state;
    draw("none", "", "");
    draw("one", "--guidance 1", "");
    draw("guided", "--guidance 3", "");
    draw("negative", "--guidance 3 --negative", "'a red sign'");
    draw("skipping", "--guidance 3 --skip-layers 1,2 --skip-start 0.1 --skip-stop", "0.9");
    same_image("none", "one", true);
    same_image("none", "guided", false);
    same_image("guided", "negative", false);
    same_image("guided", "skipping", false);
    check_text("none/000.png", "guidance", "1");
    check_text("negative/000.png", "guidance", "3");
    check_text("negative/000.png", "negative", "a red sign");
    check_text("skipping/000.png", "skip_layers", "1,2");
    check_text("skipping/000.png", "skip_scale", "2.8");
    check_text("skipping/000.png", "skip_stop", "0.9");
}

static void guidance_that_makes_no_sense(void **state) {
    (void)state;
    refused(2, MODEL "--negative red", "--negative is a part of guidance; expected --guidance G above 1");
    refused(2, MODEL "--skip-layers 1", "--skip-layers is a part of guidance");
    refused(2, MODEL "--guidance 0.5", "--guidance: \"0.5\" is out of range");
    refused(2, MODEL "--guidance 2 --skip-layers 1,", "expected numbers of blocks such as 7,8,9");
    refused(2, MODEL "--guidance 2 --skip-layers 1,99", "expected numbers of blocks such as 7,8,9");
    refused(2, MODEL "--guidance 2 --skip-layers 17", "block 17; expected blocks from 0 to 3");
}

/* Guidance of evaluations changes their scores and not the training. */
static void evaluations_are_guided(void **state) {
    (void)state;
    train_well(1, "without", "--set train.steps=1 --set log.samples_every=1");
    train_well(1, "with",
               "--set train.steps=1 --set log.samples_every=1 --set eval.guidance=3 --set eval.negative=red "
               "--set eval.skip_layers=[1] --set eval.skip_stop=0.9");
    json_t *plain = lines_of("without", "eval.jsonl"), *guided = lines_of("with", "eval.jsonl");
    assert_false(json_equal(plain, guided));
    json_decref(plain);
    json_decref(guided);
    same_last_lines("without", "with", "metrics.jsonl", 0, 1);
    check_text("with/samples/step-000001.png", "guidance", "3");
    check_text("with/samples/step-000001.png", "negative", "red");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_and_latents),
        cmocka_unit_test(noise_that_does_not_fit),
        cmocka_unit_test(guidance_changes_images_and_is_written_down),
        cmocka_unit_test(guidance_that_makes_no_sense),
        cmocka_unit_test(evaluations_are_guided),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
