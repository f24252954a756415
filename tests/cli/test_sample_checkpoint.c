/* marble sample --checkpoint: the adapter's layout, alpha and base model are those of the checkpoint, which
 * needs nothing beside it; a configuration that says otherwise is an error. */
#include "shell_case.h"
#include "data/image.h"

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8, targets: [attn.to_q]}}\n"
    "prompts: {source: signs, train_count: 8, test_count: 4, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, micro_batch: 4}\n"
    "train: {steps: 2, lr: 1.0e-2, beta: 1.0, micro_batch: 4, timestep_fraction: 1.0}\n"
    "rewards: [{name: color}, {name: clean}]\n"
    "eval: {every: 0, prompts: 2, steps: 2}\n"
    "log: {level: error, samples_every: 0}\n";

#define SAMPLE "$M sample --prompt 'three blue circles' --steps 2 --threads 1 "

static void good(const char *options, const char *out) {
    if (shell(SAMPLE "%s --out %s >said 2>&1", options, out) != 0) {
        shell("cat said");
        fail_msg("sample %s", options);
    }
}

/* The pixels alone: a file also says which adapter and model it was drawn with. */
static bool same_pixels(const char *a, const char *b) {
    const char *names[2] = {a, b};
    mbl_image_t image[2];
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s/000.png", folder, names[i]);
        assert_int_equal(mbl_image_read_png(path, &image[i]), MBL_OK);
    }
    bool same = image[0].width == image[1].width && image[0].height == image[1].height &&
                memcmp(image[0].rgb, image[1].rgb, 3 * image[0].width * image[0].height) == 0;
    mbl_image_free(&image[0]);
    mbl_image_free(&image[1]);
    return same;
}

static void refused(const char *options, int code, const char *words) {
    int got = shell(SAMPLE "%s --out never >said 2>&1", options);
    if (got != code || shell("grep -qF -e '%s' said", words) != 0 || shell("test ! -e never") != 0) {
        shell("cat said");
        fail_msg("sample %s: exit %d, expected %d with \"%s\" and no folder", options, got, code, words);
    }
}

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    train_well(1, "run", "");
    return 0;
}

static void the_checkpoint_needs_nothing_beside_it(void **state) {
    (void)state;
    good("--checkpoint $C", "alone");
    good("--checkpoint $C --model base/model", "with-model");
    good("--checkpoint $C --config run.yaml", "with-config");
    assert_int_equal(shell("$M export $C --lora a.safetensors --model base/model 2>/dev/null"), 0);
    good("--model base/model --lora a.safetensors", "with-lora");
    good("--model base/model", "base-alone");
    assert_true(same_pixels("alone", "with-model"));
    assert_true(same_pixels("alone", "with-config"));
    assert_true(same_pixels("alone", "with-lora"));
    assert_false(same_pixels("alone", "base-alone"));
    /* keys that have nothing to do with the adapter may differ */
    good("--checkpoint $C --config run.yaml --set train.lr=0.5 --set model.lora.alpha=8.0", "other-keys");
    assert_true(same_pixels("alone", "other-keys"));
}

static void a_configuration_that_disagrees_is_an_error(void **state) {
    (void)state;
    refused("--checkpoint $C --config run.yaml --set model.lora.targets=[attn.to_v]", 2,
            "run.yaml: model.lora.targets is [\"attn.to_v\"], in the checkpoint run/checkpoints/latest.h5 it "
            "is [\"attn.to_q\"]");
    refused("--checkpoint $C --config run.yaml --set model.lora.alpha=80", 2,
            "model.lora.alpha is 80.0, in the checkpoint");
    refused("--checkpoint $C --config run.yaml --set model.lora.rank=2", 2,
            "model.lora.rank is 2, in the checkpoint");
    refused("--checkpoint $C --config nowhere.yaml", 2, "nowhere.yaml: cannot be opened");
}

/* Finite weights whose products are not: no black image, and the image and the adapter are named. */
static void what_overflows_is_no_image(void **state) {
    (void)state;
    assert_int_equal(shell("$M export $C --lora huge.safetensors --model base/model 2>/dev/null && printf "
                           "'\\231\\166\\141\\177' | dd of=huge.safetensors conv=notrunc bs=1 status=none "
                           "seek=$(($(stat -c %%s huge.safetensors) - 4))"),
                     0);
    refused("--model base/model --lora huge.safetensors", 1,
            "the latent of image 0 (three blue circles) has ");
    assert_int_equal(shell("grep -qF 'expected finite numbers from base/model with huge.safetensors' said"),
                     0);
}

static void other_mistakes_are_named(void **state) {
    (void)state;
    refused("", 2, "expected --model DIR, or --checkpoint FILE");
    refused("--checkpoint $C --lora a.safetensors", 2, "expected one adapter");
    refused("--model base/model --config run.yaml", 2, "--config goes with --checkpoint");
    refused("--checkpoint $C --set train.lr=1", 2, "--set overrides a key of --config");
    refused("--checkpoint $C --model nowhere", 2, "--model: nowhere: is no folder; expected the base model");
    refused("--checkpoint base/checkpoints/latest.h5", 2, "of kind \"pretrain\"");
    assert_int_equal(shell("$M pretrain run.yaml --out p --resume $C >said 2>&1"), 2);
    assert_int_equal(shell("grep -q 'of kind \"train\"; expected one of marble pretrain' said"), 0);
    /* a base that has moved, and another one */
    assert_int_equal(shell("cp -r base/model moved && mv base/model base/away"), 0);
    refused("--checkpoint $C", 2, "base/model, which is not there; expected --model DIR");
    assert_int_equal(shell("$M export $C --lora b.safetensors >said 2>&1"), 2);
    assert_int_equal(shell("grep -q 'expected --model DIR' said"), 0);
    good("--checkpoint $C --model moved", "from-moved");
    assert_true(same_pixels("alone", "from-moved"));
    assert_int_equal(shell("mv base/away base/model"), 0);
    assert_int_equal(shell("$M export $C --merged merged 2>/dev/null"), 0);
    refused("--checkpoint $C --model merged", 2, "another base model");
    good("--checkpoint $C --model merged --config run.yaml --set checkpoint.other_base=accept", "twice");
    assert_false(same_pixels("alone", "twice"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checkpoint_needs_nothing_beside_it),
        cmocka_unit_test(a_configuration_that_disagrees_is_an_error),
        cmocka_unit_test(what_overflows_is_no_image),
        cmocka_unit_test(other_mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
