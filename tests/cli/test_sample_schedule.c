/* src/data/image_text.c and marble sample: by which noise schedule images are drawn, and that they say so. */
#include "sample_case.h"

static void texts_of_any_script_come_back(void **state) {
    char path[1024];
    uint8_t rgb[2 * 3 * 3] = {1, 2, 3, 250, 251, 252};
    const mbl_image_t image = {2, 3, rgb};
    mbl_image_t back;
    const mbl_image_text_t texts[] = {
        {"prompt", "a \"cat\", 100 % of it"}, {"other", "\xE3\x81\x82 \xC3\xA9"}, {"empty", ""}};
    (void)state;
    snprintf(path, sizeof path, "%s/t.png", folder);
    assert_int_equal(mbl_image_write_png_text(path, &image, texts, 3), MBL_OK);
    for (size_t i = 0; i < 3; i++)
        check_text("t.png", texts[i].key, texts[i].text);
    assert_int_equal(mbl_image_read_png(path, &back), MBL_OK);
    assert_memory_equal(back.rgb, rgb, sizeof rgb);
    mbl_image_free(&back);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_image_write_png_text("/nowhere/t.png", &image, texts, 3), MBL_ERR_IO);
    mbl_fail_quiet(0);
}

/* The model's own shift unless another is given; 3 is nobody's default. */
static void the_shift_is_the_models(void **state) {
    char more[1024], *text;
    (void)state;
    snprintf(
        more, sizeof more,
        "cp -r %s/deploy/examples/signs-base %s/shifted && sed -i 's/\"shift\": *[0-9.]*/\"shift\": 1.5/' "
        "%s/shifted/scheduler/scheduler_config.json",
        MBL_SOURCE_DIR, folder, folder);
    assert_int_equal(system(more), 0);
    snprintf(more, sizeof more, "--model %s/shifted", folder);
    sample("own", more);
    strcat(more, " --shift 1.5");
    sample("same", more);
    snprintf(more, sizeof more, "--model %s/shifted --shift 3 --seed 42", folder);
    sample("three", more);
    snprintf(more, sizeof more, "--model %s/deploy/examples/signs-base", MBL_SOURCE_DIR);
    sample("base", more);
    same_image("own", "same", true);
    same_image("own", "three", false);
    same_image("base", "three", true);
    check_times("own.log", "dpm2, 3 steps, schedule diffusers (the model's own), shift 1.5 (the model's own)",
                1);
    check_times("three.log", "shift 3 (--shift)", 1);
    check_text("own/000.png", "shift", "1.5");
    check_text("three/000.png", "shift", "3");
    check_text("own/000.png", "prompt", "three blue circles");
    check_text("own/000.png", "seed", "42");
    check_text("own/000.png", "sample", "0");
    check_text("own/000.png", "steps", "3");
    check_text("own/000.png", "solver", "dpm2");
    check_text("own/000.png", "lora", "none");
    text = text_of("own/000.png", "schedule");
    assert_non_null(strstr(text, "linspace(1, shift / (999 + shift), steps)"));
    free(text);
    sample("linear", strcat(more, " --schedule linear"));
    same_image("base", "linear", false);
    check_times("linear.log", "schedule linear (--schedule)", 1);
    text = text_of("linear/000.png", "schedule");
    assert_non_null(strstr(text, "linspace(1, 1 / steps, steps)"));
    free(text);
    sample("sheet", strcat(more, " --prompt 'a blue sign' --batch 2 --seed 7"));
    check_text("sheet/sheet.png", "prompt", "three blue circles\na blue sign");
    check_text("sheet/sheet.png", "sample", "0 to 1");
    check_text("sheet/sheet.png", "seed", "7");
    check_text("sheet/sheet.png", "shift", "3");
    check_text("sheet/001.png", "prompt", "a blue sign");
}

static void a_checkpoint_brings_its_own(void **state) {
    char more[2048], path[512], *text;
    (void)state;
    train_well(
        1, "run",
        "--set train.steps=1 --set rollout.shift=2 --set rollout.schedule=linear --set log.samples_every=1");
    snprintf(path, sizeof path, "%s/run/checkpoints/step-000001.h5", folder);
    snprintf(more, sizeof more, "--checkpoint %s", path);
    sample("trained", more);
    check_times("trained.log", "shift 2 (rollout.shift of the checkpoint's run)", 1);
    check_times("trained.log", "schedule linear (rollout.schedule of the checkpoint's run)", 1);
    check_text("trained/000.png", "shift", "2");
    check_text("trained/000.png", "lora", path);
    snprintf(more, sizeof more,
             "%s/marble export %s --lora %s/card/x.safetensors --card %s/card >%s/export.log 2>&1",
             MBL_BINARY_DIR, path, folder, folder, folder);
    assert_int_equal(system(more), 0);
    check_times("card/README.md", "solver `dpm2` in 2 steps", 1);
    check_times("card/README.md", "with shift 2.", 1);
    check_times("card/README.md", "linspace(1, 1 / steps, steps)", 1);
    /* sheets of training and the card's chart say of which run they are */
    char *digest = text_of("trained/000.png", "model_digest"), *run = text_of("card/alpha.png", "run");
    assert_int_equal(strlen(run), 16);
    check_times("run/run.yaml", run, 1);
    check_text("card/alpha.png", "step", "1");
    check_text("card/alpha.png", "model_digest", digest);
    check_text("run/samples/step-000001.png", "run", run);
    check_text("run/samples/step-000001.png", "step", "1");
    check_text("run/samples/step-000001.png", "model_digest", digest);
    check_text("run/samples/step-000001.png", "steps", "2");
    check_text("run/samples/step-000001.png", "solver", "euler");
    check_text("run/samples/step-000001.png", "shift", "2");
    check_text("run/samples/step-000001.png", "seed", "1234");
    text = text_of("run/samples/step-000001.png", "schedule");
    assert_non_null(strstr(text, "linspace(1, 1 / steps, steps)"));
    free(text);
    free(digest);
    free(run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_any_script_come_back),
        cmocka_unit_test(the_shift_is_the_models),
        cmocka_unit_test(a_checkpoint_brings_its_own),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
