/* Images of another size than the model was made for, not square: drawn, trained on, kept by a checkpoint. */
#include "sample_case.h"

#define MODEL "--model " MBL_SOURCE_DIR "/deploy/examples/signs-base "

static void check_size(const char *file, size_t height, size_t width) {
    char path[512];
    mbl_image_t image;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    assert_int_equal(mbl_image_read_png(path, &image), MBL_OK);
    assert_int_equal(image.height, height);
    assert_int_equal(image.width, width);
    mbl_image_free(&image);
}

static void refused(const char *more, const char *words) {
    assert_int_equal(try_sample("refused", more), 2);
    check_times("refused.log", words, 1);
}

static void sizes_of_sample(void **state) {
    (void)state;
    sample("wide", MODEL "--height 20 --width 32 --guidance 2");
    check_size("wide/000.png", 20, 32);
    check_text("wide/000.png", "height", "20");
    check_text("wide/000.png", "width", "32");
    sample("high", MODEL "--height 32 --width 20");
    check_size("high/000.png", 32, 20);
    refused(MODEL "--height 20", "--height alone; expected --height and --width, or neither");
    refused(MODEL "--height 20 --width 33",
            "images of 20 x 33 pixels (height x width); expected multiples of 4, what a token of this model");
    refused(MODEL "--height 32 --width 64", "up to 32");
}

/* Prompts that are no signs, whose scorers want signs' size. */
static void a_run_of_another_size(void **state) {
    char more[2048], path[512];
    mbl_image_t sheet;
    (void)state;
    write_lines("prompts.txt", "a cat\na dog\na tree\na house\n");
    snprintf(more, sizeof more,
             "%s --set 'rewards=[{name: jpeg}]' --set rollout.height=20 --set rollout.width=32 --set "
             "train.steps=1 "
             "--set log.samples_every=1 --set eval.prompts=2",
             prompts_of("prompts.txt"));
    train_well(1, "run", more);
    json_t *lines = lines_of("run", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), 1);
    json_decref(lines);
    /* two cells of images 32 wide, four times as large, with gaps of 8 */
    snprintf(path, sizeof path, "%s/run/samples/step-000001.png", folder);
    assert_int_equal(mbl_image_read_png(path, &sheet), MBL_OK);
    assert_int_equal(sheet.width, 2 * (4 * 32 + 8) + 8);
    mbl_image_free(&sheet);
    snprintf(more, sizeof more, "--checkpoint %s/run/checkpoints/step-000001.h5", folder);
    sample("trained", more);
    check_size("trained/000.png", 20, 32);
    strcat(more, " --height 32 --width 32");
    sample("square", more);
    check_size("square/000.png", 32, 32);
}

static void sizes_that_a_run_refuses(void **state) {
    (void)state;
    assert_int_equal(train(1, "odd", "--set rollout.height=20 --set rollout.width=33"), 2);
    check_times("odd.log", "rollout.height, rollout.width: images of 20 x 33 pixels", 1);
    assert_int_equal(train(1, "half", "--set rollout.height=20"), 2);
    check_times("half.log", "rollout.height: 20 and rollout.width: 0; expected both or neither", 1);
    /* the example's scorers fail, and say why */
    train_well(1, "signs", "--set rollout.height=20 --set rollout.width=32 --set train.steps=1");
    assert_true(times_in("signs.log", "images of the signs example are 32 x 32") > 0);
}

/* Text encoders a layer at a time give the same image, to the bit. */
static void low_memory_is_the_same_image(void **state) {
    (void)state;
    sample("whole", MODEL "--guidance 2");
    sample("layers", MODEL "--guidance 2 --low-memory");
    same_image("whole", "layers", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_sample),
        cmocka_unit_test(low_memory_is_the_same_image),
        cmocka_unit_test(a_run_of_another_size),
        cmocka_unit_test(sizes_that_a_run_refuses),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
