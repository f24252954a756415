/* Where `marble export` writes: never into its base model, through links neither, over nothing that is there
 * without --force; and cards that name what was written, in front matter that machines read. */
#include "shell_case.h"

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 8, test_count: 4, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, micro_batch: 4}\n"
    "train: {steps: 1, lr: 1.0e-2, beta: 1.0, micro_batch: 4, timestep_fraction: 1.0}\n"
    "rewards: [{name: color}, {name: clean}]\n"
    "eval: {every: 0, prompts: 2, steps: 2}\n"
    "log: {level: error, samples_every: 0}\n";

static void good(const char *words) {
    if (shell("{ %s; } >said 2>&1", words) != 0) {
        shell("cat said");
        fail_msg("%s", words);
    }
}

/* An export that has to be refused with 2 and these words. */
static void refused(const char *arguments, const char *words) {
    int code = shell("$M export $C %s >said 2>&1", arguments);
    if (code != 2 || shell("grep -qF -e \"%s\" said", words) != 0) {
        shell("cat said");
        fail_msg("export %s: exit %d, expected 2 and \"%s\"", arguments, code, words);
    }
}

/* Every file below `path` with its content, and every link, into NAME.sum. */
static void note(const char *path, const char *name) {
    assert_int_equal(
        shell("find %s \\( -type f -exec sha256sum {} + \\) -o -printf '%%p %%y %%l\\n' | sort >%s.sum", path,
              name),
        0);
}

static void unchanged(const char *path, const char *name) {
    note(path, "now");
    if (shell("cmp -s %s.sum now.sum", name) != 0) {
        shell("diff %s.sum now.sum", name);
        fail_msg("%s has changed", path);
    }
}

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    train_well(1, "run", "");
    return 0;
}

static void the_base_is_never_written_to(void **state) {
    static const char *const inside[] = {"--merged base/model",
                                         "--merged base/model/",
                                         "--merged base/model/merged",
                                         "--merged base/model/transformer",
                                         "--merged ./run/../base/model",
                                         "--merged link",
                                         "--merged link/new/folder",
                                         "--merged part",
                                         "--peft base/model",
                                         "--peft base/model/adapter",
                                         "--peft link/text_encoder/a",
                                         "--card base/model",
                                         "--card link",
                                         "--lora base/model/x.safetensors",
                                         "--lora link/transformer/x.safetensors",
                                         "--lora part/diffusion_pytorch_model.safetensors",
                                         "--lora whole.safetensors"};
    char arguments[256];
    (void)state;
    good("ln -s base/model link && ln -s base/model/transformer part && ln -s "
         "base/model/transformer/diffusion_pytorch_model.safetensors whole.safetensors");
    note("base", "base");
    for (int force = 0; force < 2; force++)
        for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
            snprintf(arguments, sizeof arguments, "%s%s", inside[i], force ? " --force" : "");
            refused(arguments, "is the base model");
        }
    refused("--merged base --force", "the base model");
    refused("--merged base", "lies in it; expected a folder of the new model's own");
    refused("--merged . --force", "lies in it");
    refused("--merged /", "lies in it"); /* without --force, since a fault would write there */
    unchanged("base", "base");
    /* a folder whose parts are links into the base */
    good("mkdir mixed && ln -s ../base/model/transformer mixed/transformer && cp base/model/model_index.json "
         "mixed");
    refused("--merged mixed --force", "mixed/transformer: is a link");
    unchanged("base", "base");
    /* names that are shared with the base are other files once written */
    good("cp -rl base/model hard && $M export $C --merged hard --force");
    unchanged("base", "base");
    /* a base whose files and parts lie elsewhere */
    good("mkdir -p store linked && cp -r base/model/transformer store/t && cp -r base/model/tokenizer "
         "base/model/text_encoder "
         "base/model/scheduler base/model/model_index.json linked && ln -s ../store/t linked/transformer && "
         "mv "
         "linked/tokenizer/vocab.json store && ln -s ../../store/vocab.json linked/tokenizer/vocab.json");
    note("store", "store");
    refused("--model linked --merged store/t", "is the base model");
    refused("--model linked --merged store/t/new", "is the base model");
    refused("--model linked --lora store/vocab.json --force", "is the base model");
    unchanged("store", "store");
}

static void nothing_is_overwritten(void **state) {
    (void)state;
    good("echo mine >a.safetensors && mkdir -p full empty && echo mine >full/README.md");
    note("a.safetensors full", "mine");
    refused("--lora a.safetensors", "a.safetensors: exists; expected a new file, or --force");
    refused("--peft full",
            "full: is not empty (it has README.md); expected a new or an empty folder, or --force");
    refused("--card full", "--card: full: is not empty");
    refused("--merged full", "--merged: full: is not empty");
    refused("--merged full", "removes the weights");
    refused("--peft a.safetensors", "a.safetensors: is no folder");
    refused("--lora full", "full: is a folder");
    refused("--lora full --force", "full: is a folder");
    refused("--lora /dev/null --force", "/dev/null: is no regular file");
    refused("--lora run/checkpoints/step-000001.h5 --force", "is the checkpoint");
    refused("--lora b.safetensors --card full", "is not empty");
    assert_int_equal(shell("test ! -e b.safetensors"), 0); /* all is checked before anything is written */
    refused("--lora new/../b.safetensors", "behind a folder that does not exist");
    refused("--lora ''", "empty string");
    refused("--peft new --card ./new", "writes there too");
    refused("--merged empty --peft empty/", "writes there too");
    refused("--lora new/x.safetensors --peft new", "writes there too");
    unchanged("a.safetensors full", "mine");
    good("$M export $C --lora a.safetensors --card full --force && ! grep -q mine full/README.md "
         "a.safetensors");
    good("$M export $C --peft empty && echo kept >empty/other && $M export $C --peft empty --force && grep "
         "-q kept empty/other");
}

static void old_weights_of_a_merged_model_go(void **state) {
    (void)state;
    good("$M export $C --merged m && cp -r m again && echo kept >again/notes.txt && cd again/transformer && "
         "mv "
         "diffusion_pytorch_model.safetensors diffusion_pytorch_model-00001-of-00001.safetensors && echo "
         "'{\"weight_map\": {\"proj_out.bias\": \"diffusion_pytorch_model-00001-of-00001.safetensors\"}}' "
         ">diffusion_pytorch_model.safetensors.index.json && cp "
         "diffusion_pytorch_model-00001-of-00001.safetensors "
         "../text_encoder/model-00001-of-00001.safetensors");
    good("$M export $C --merged again --force && rm again/notes.txt");
    good("cp m/README.md m/alpha.png again && diff -r m again");
    good("for model in m again; do ln -sfn $model drawn && $M sample --model drawn --prompt 'three blue "
         "circles' --steps 2 --threads 1 --out s-$model; done && cmp s-m/sheet.png s-again/sheet.png");
    /* what the base has besides its model is not taken along */
    good("cp -r base/model odd && mkdir odd/.git 'odd/vae copy' && echo x >odd/.git/config && echo x "
         ">odd/big.safetensors && echo x "
         ">'odd/vae copy/x' && echo free >odd/LICENSE.md && $M export $C --model odd --merged clean && test "
         "-e clean/LICENSE.md && "
         "test ! -e clean/.git && test ! -e 'clean/vae copy' && test ! -e clean/big.safetensors");
}

static void cards_name_what_was_written(void **state) {
    (void)state;
    good("$M export $C --lora out/my-adapter.safetensors --card out");
    good("grep -qF 'pipe.load_lora_weights(\"THIS_FOLDER\", weight_name=\"my-adapter.safetensors\")' "
         "out/README.md");
    good("mkdir 'it'\\''s \"new\"' && $M export $C --lora 'it'\\''s \"new\"/x.safetensors' --card card");
    good("grep -qF 'pipe.load_lora_weights(\"it'\\''s \\\"new\\\"\", weight_name=\"x.safetensors\")' "
         "card/README.md");
    good("$M export $C --card alone && grep -q 'writes the adapter for diffusers' alone/README.md && ! grep "
         "-q load_lora_weights "
         "alone/README.md");
    /* any name of the base: through --model and in the front matter */
    good("cp -r base/model \"it's \\\"a\\\": #1 *b*\" && $M export $C --card odd-card --model \"it's "
         "\\\"a\\\": #1 *b*\"");
    good("grep -qxF 'base_model: \"it'\\''s \\\"a\\\": #1 *b*\"' odd-card/README.md");
    good("grep -qF '# it'\\''s \"a\": \\#1 \\*b\\*, fine-tuned on color, clean' odd-card/README.md");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_is_never_written_to),
        cmocka_unit_test(nothing_is_overwritten),
        cmocka_unit_test(old_weights_of_a_merged_model_go),
        cmocka_unit_test(cards_name_what_was_written),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
