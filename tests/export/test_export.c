/* marble export, as a user would: what is written holds the checkpoint's adapter, samples drawn with it, with
 * the checkpoint and with the merged model are the same images, and the card describes the run. */
#include "runs.h"

#include "data/image.h"
#include "model/lora_file.h"
#include "model/pipeline.h"

#include <unistd.h>

enum { STEPS = 4 };

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}\n"
    "rollout: {steps: 3, solver: euler, micro_batch: 8}\n"
    "train: {steps: 4, lr: 1.0e-2, beta: 1.0, micro_batch: 8, timestep_fraction: 0.7, old_decay: {rate: 1, "
    "hold: 0.5}}\n"
    "rewards: [{name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 0, prompts: 4, steps: 2}\n"
    "checkpoint: {every: 2, keep: 0}\n"
    "log: {level: error, samples_every: 0}\n";

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    train_well(1, "run", "");
    return 0;
}

static char *in(const char *name) {
    static char path[6][512];
    static int next;
    char *out = path[next++ % 6];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

/* build/marble with arguments, in the test's folder; its exit code, what it prints in folder/said. */
static int marble(const char *arguments) {
    char command[4096];
    snprintf(command, sizeof command, "cd %s && OMP_NUM_THREADS=1 %s/marble %s >said 2>&1", folder,
             MBL_BINARY_DIR, arguments);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void marble_well(const char *arguments) {
    if (marble(arguments) != 0) {
        char *said = read_whole(in("said"), NULL);
        print_error("marble %s:\n%s\n", arguments, said);
        free(said);
        fail();
    }
}

static void said(const char *words) {
    char *text = read_whole(in("said"), NULL);
    if (!strstr(text, words)) {
        print_error("\"%s\" is not in:\n%s\n", words, text);
        fail();
    }
    free(text);
}

static void compare_values(const char *adapter) {
    char dataset[64], arguments[256];
    mbl_ckpt_t *ckpt;
    mbl_ops_t *ops;
    mbl_pipeline_t *pipeline;
    mbl_lora_config_t lora_config;
    mbl_lora_t *lora;
    snprintf(arguments, sizeof arguments,
             "export run/checkpoints/latest.h5 --adapter %s --lora %s.safetensors --peft %s", adapter,
             adapter, adapter);
    marble_well(arguments);
    assert_int_equal(mbl_ops_open("cpu", 1, &ops), MBL_OK);
    assert_int_equal(mbl_pipeline_open(ops, MBL_F32, in("base/model"), NULL, &pipeline), MBL_OK);
    assert_int_equal(mbl_lora_read_config(mbl_pipeline_model(pipeline), in(adapter), &lora_config), MBL_OK);
    assert_int_equal(lora_config.rank, 4);
    assert_near(lora_config.alpha, 8, 0);
    assert_int_equal(mbl_lora_new(mbl_pipeline_model(pipeline), &lora_config, &lora), MBL_OK);
    size_t n = mbl_lora_size(lora);
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    snprintf(dataset, sizeof dataset, "adapter/%s", adapter);
    assert_int_equal(mbl_ckpt_open(in("run/checkpoints/latest.h5"), &ckpt), MBL_OK);
    assert_int_equal(mbl_ckpt_read(ckpt, dataset, MBL_F32, n, want), MBL_OK);
    mbl_ckpt_close(ckpt);
    assert_int_equal(mbl_lora_read(lora, in(adapter), got), MBL_OK);
    assert_memory_equal(got, want, n * sizeof *got);
    snprintf(arguments, sizeof arguments, "%s.safetensors", adapter);
    assert_int_equal(mbl_lora_read(lora, in(arguments), got), MBL_OK); /* the scale is 2: exact */
    assert_memory_equal(got, want, n * sizeof *got);
    free(want);
    free(got);
    mbl_lora_free(lora);
    mbl_pipeline_close(pipeline);
    mbl_ops_close(ops);
}

static void every_adapter_is_the_checkpoints(void **state) {
    (void)state;
    compare_values("ema");
    compare_values("current");
    compare_values("old");
    size_t size[3];
    char *text[3];
    const char *names[] = {"ema.safetensors", "current.safetensors", "old.safetensors"};
    for (int i = 0; i < 3; i++)
        text[i] = read_whole(in(names[i]), &size[i]);
    assert_memory_not_equal(text[0], text[1], size[0]);
    assert_memory_not_equal(text[1], text[2], size[0]);
    for (int i = 0; i < 3; i++)
        free(text[i]);
}

static void samples_are_the_same_images(void **state) {
    static const char *const models[] = {
        "--model base/model --checkpoint run/checkpoints/latest.h5 --config run.yaml --out by-checkpoint",
        "--model base/model --lora lora.safetensors --out by-file",
        "--model base/model --lora peft --out by-folder", "--model merged --out by-merged",
        "--model base/model --out by-base"};
    static const char *const sheets[] = {"by-checkpoint/sheet.png", "by-file/sheet.png",
                                         "by-folder/sheet.png", "by-merged/sheet.png", "by-base/sheet.png"};
    char arguments[512];
    mbl_image_t sheet[5];
    (void)state;
    marble_well(
        "export run/checkpoints/latest.h5 --lora lora.safetensors --peft peft --merged merged --card card");
    for (int i = 0; i < 5; i++) { /* the pixels: files also say what they were drawn with */
        snprintf(arguments, sizeof arguments, "sample %s --prompt 'three blue circles' --steps 4 --threads 1",
                 models[i]);
        marble_well(arguments);
        assert_int_equal(mbl_image_read_png(in(sheets[i]), &sheet[i]), MBL_OK);
    }
    size_t size = 3 * sheet[0].width * sheet[0].height;
    for (int i = 1; i < 5; i++)
        assert_true(sheet[i].width == sheet[0].width && sheet[i].height == sheet[0].height);
    for (int i = 1; i < 3; i++)
        assert_memory_equal(sheet[i].rgb, sheet[0].rgb, size);
    assert_memory_not_equal(sheet[4].rgb, sheet[0].rgb, size); /* the base draws something else */
    assert_memory_not_equal(sheet[3].rgb, sheet[4].rgb, size);
    for (int i = 0; i < 5; i++)
        mbl_image_free(&sheet[i]);
}

static void the_card_describes_the_run(void **state) {
    (void)state;
    marble_well("export run/checkpoints/step-000002.h5 --card card2");
    char *text = read_whole(in("card2/README.md"), NULL), *png = read_whole(in("card2/alpha.png"), NULL);
    static const char *const words[] = {
        "base_model: \"model\"\n",          "fine-tuned on color, clean, jpeg",     "LoRA of rank 4, alpha 8",
        "2 optimizer steps, adapter `ema`", "![averaged alpha by step](alpha.png)", "\"group_size\": 4"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i]))
            fail_msg("\"%s\" is not in the card", words[i]);
    assert_null(strstr(text, "## Rewards on")); /* evaluated before and at the end, not at step 2 */
    assert_memory_equal(png, "\x89PNG", 4);
    free(text);
    free(png);
    marble_well("export run/checkpoints/latest.h5 --card card4");
    text = read_whole(in("card4/README.md"), NULL);
    assert_non_null(strstr(text, "before (step 0) and after (step 4"));
    assert_non_null(strstr(text, "| color | 0."));
    free(text);
}

static void errors_say_what_is_wrong(void **state) {
    (void)state;
    assert_int_equal(marble("export run/checkpoints/latest.h5"), 2);
    said("nothing to write");
    assert_int_equal(marble("export base/checkpoints/latest.h5 --lora x.safetensors"), 2);
    said("of kind \"pretrain\"");
    assert_int_equal(marble("export run/run.yaml --lora x.safetensors"), 1);
    said("no checkpoint of marble");
    assert_int_equal(marble("export run/checkpoints/latest.h5 --model merged --lora x.safetensors"), 2);
    said("made on another base model");
    assert_int_equal(marble("export run/checkpoints/latest.h5 --lora nowhere/x.safetensors"), 1);
    said("nowhere/x.safetensors: cannot be written");
    assert_int_not_equal(access(in("x.safetensors"), F_OK), 0);
    assert_int_equal(marble("sample --model base/model --lora run.yaml --prompt x --out y"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_adapter_is_the_checkpoints),
        cmocka_unit_test(samples_are_the_same_images),
        cmocka_unit_test(the_card_describes_the_run),
        cmocka_unit_test(errors_say_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
