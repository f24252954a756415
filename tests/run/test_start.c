/* src/run/start: runs that start from a LoRA, with its layout or a larger one; what does not fit. */
#include "small_run.h"

#include "base/file.h"
#include "model/safetensors.h"

#include <unistd.h>

static const char *at(const char *name) {
    static char path[6][512];
    static int next;
    char *out = path[next++ % 6];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

/* The adapter of a run's newest checkpoint as FOLDER/OUT. */
static void export(const char *run, const char *out) {
    char command[2048];
    snprintf(
        command, sizeof command,
        "%s/marble export %s/%s/checkpoints/latest.h5 --adapter current --lora %s/%s >%s/export.log 2>&1",
        MBL_BINARY_DIR, folder, run, folder, out, folder);
    assert_int_equal(system(command), 0);
}

/* A run of 2 steps with rank 4, alpha 8, and what it learnt as first.safetensors. */
static int prepare(void **state) {
    prepare_small(state);
    train_well(1, "first", "--set model.lora.targets=[attn.to_q,attn.to_out.0] --set eval.prompts=1");
    export("first", "first.safetensors");
    return 0;
}

/* One step of next to no length: the adapter that a run starts from. */
static void start(int ranks, const char *out, const char *lora) {
    char more[1024];
    snprintf(more, sizeof more,
             "--set train.steps=1 --set train.lr=1e-30 --set eval.prompts=1 --set 'model.lora=%s'", lora);
    train_well(ranks, out, more);
}

static const char first_tensor[] = "transformer.transformer_blocks.0.attn.to_q.lora_%c.weight";

/* One matrix of an exported adapter; free it. */
static float *matrix(const char *file, char which, size_t *rows, size_t *columns) {
    mbl_st_t *st;
    char name[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, first_tensor, which);
#pragma GCC diagnostic pop
    assert_int_equal(mbl_st_open(at(file), &st), MBL_OK);
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    assert_non_null(entry);
    *rows = entry->dim[0];
    *columns = entry->dim[1];
    float *out = calloc(*rows * *columns, sizeof *out);
    assert_int_equal(mbl_st_read_f32(st, name, out, *rows * *columns), MBL_OK);
    mbl_st_close(st);
    return out;
}

/* How far the products B A of two exported adapters lie apart; alpha / rank is in B. */
static double distance(const char *a_file, const char *b_file) {
    double difference = 0, norm = 0;
    const char *file[2] = {a_file, b_file};
    float *a[2], *b[2];
    size_t rank[2], in, out;
    for (int k = 0; k < 2; k++) {
        a[k] = matrix(file[k], 'A', &rank[k], &in);
        b[k] = matrix(file[k], 'B', &out, &rank[k]);
    }
    for (size_t i = 0; i < out; i++)
        for (size_t j = 0; j < in; j++) {
            double sum[2] = {0, 0};
            for (int k = 0; k < 2; k++)
                for (size_t r = 0; r < rank[k]; r++)
                    sum[k] += (double)b[k][i * rank[k] + r] * (double)a[k][r * in + j];
            difference += (sum[0] - sum[1]) * (sum[0] - sum[1]);
            norm += sum[0] * sum[0];
        }
    for (int k = 0; k < 2; k++) {
        free(a[k]);
        free(b[k]);
    }
    assert_true(norm > 0);
    return sqrt(difference / norm);
}

static void with_its_own_layout(void **state) {
    char lora[600];
    (void)state;
    snprintf(lora, sizeof lora, "{from: %s}", at("first.safetensors"));
    start(2, "own", lora);
    check_times("own.log",
                "an adapter of rank 4, alpha 4, on 2 kinds of linears (rank, alpha, targets: the file's)", 1);
    check_times("own/run.yaml", "rank: 4", 1);
    export("own", "own.safetensors");
    assert_near(distance("first.safetensors", "own.safetensors"), 0, 1e-6);
}

/* A larger rank, another alpha, more targets: the same product, and what is new learns. */
static void with_a_larger_layout(void **state) {
    char lora[600];
    size_t rows, rank;
    (void)state;
    snprintf(lora, sizeof lora,
             "{from: %s, rank: 6, alpha: 3, targets: [attn.to_q, attn.to_k, attn.to_out.0]}",
             at("first.safetensors"));
    start(1, "larger", lora);
    check_times("larger.log", "of rank 6, alpha 3, on 3 kinds of linears (all as the configuration says)", 1);
    export("larger", "larger.safetensors");
    assert_near(distance("first.safetensors", "larger.safetensors"), 0, 1e-6);
    snprintf(lora + strlen(lora) - 1, sizeof lora - strlen(lora),
             "}' --set train.steps=2 --set 'train.lr=1e-2");
    start(1, "learnt", lora);
    export("learnt", "learnt.safetensors");
    float *b = matrix("learnt.safetensors", 'B', &rows, &rank);
    assert_int_equal(rank, 6);
    for (size_t r = 0; r < rank; r++) {
        double norm = 0;
        for (size_t i = 0; i < rows; i++)
            norm += fabs((double)b[i * rank + r]);
        assert_true(norm > 0); /* no unit that stays zero for ever */
    }
    free(b);
}

static void refused(const char *lora, const char *words) {
    char more[1024];
    snprintf(more, sizeof more, "--set train.steps=1 --set 'model.lora=%s'", lora);
    assert_true(train(1, "refused", more) > 0);
    check_times("refused.log", words, 1);
}

static void what_does_not_fit(void **state) {
    char lora[600];
    (void)state;
    snprintf(lora, sizeof lora, "{from: %s, rank: 3}", at("first.safetensors"));
    refused(lora, "has rank 4; expected at least so much, or no rank, which takes the file's");
    snprintf(lora, sizeof lora, "{from: %s, targets: [attn.to_q]}", at("first.safetensors"));
    refused(lora, "model.lora.targets: without attn.to_out.0, which model.lora.from");
    refused("{from: " MBL_SOURCE_DIR "/tests/golden/lora_in/diffusers.safetensors}",
            "the model has no linear of that name and shape");
    refused("{from: nowhere.safetensors}", "model.lora.from: \"nowhere.safetensors\" does not exist");
}

/* A checkpoint does not need the file any more, but for going on from it. */
static void the_file_may_go(void **state) {
    char lora[600], command[1024];
    (void)state;
    snprintf(command, sizeof command, "cp %s %s", at("first.safetensors"), at("gone.safetensors"));
    assert_int_equal(system(command), 0);
    snprintf(lora, sizeof lora, "{from: %s}", at("gone.safetensors"));
    start(1, "gone", lora);
    assert_int_equal(unlink(at("gone.safetensors")), 0);
    export("gone", "kept.safetensors");
    assert_near(distance("first.safetensors", "kept.safetensors"), 0, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_its_own_layout),
        cmocka_unit_test(with_a_larger_layout),
        cmocka_unit_test(what_does_not_fit),
        cmocka_unit_test(the_file_may_go),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
