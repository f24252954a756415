/* src/run/micro_batch: as many images as memory holds, and as few blocks made again as that asks for. */
#include "tiny_pipeline.h"

#include "run/micro_batch.h"

#include <stdint.h>

enum { THERE = 40 };

static tiny_t tiny;

static mbl_config_t *config_of(const char *text) {
    mbl_config_t *config;
    assert_ok(mbl_config_parse(text, strlen(text), "run.yaml", NULL, 0, &config));
    return config;
}

static mbl_status_t fit(const char *text, mbl_tape_kind_t kind, size_t left, mbl_fit_t *out) {
    mbl_config_t *config = config_of(text);
    const mbl_passes_t passes = {
        .pipeline = tiny.pipeline, .lora = tiny.lora, .kind = kind, .there = THERE, .left = left};
    mbl_status_t status = mbl_micro_batch_fit(config, &passes, out);
    mbl_config_free(config);
    return status;
}

static mbl_fit_t fitted(const char *text, mbl_tape_kind_t kind, size_t left) {
    mbl_fit_t out = {0};
    assert_ok(fit(text, kind, left, &out));
    assert_true(out.bytes <= left);
    return out;
}

/* Bytes of so many images with so many blocks made again. */
static size_t bytes_of(size_t rows, size_t again) {
    char text[128];
    snprintf(text, sizeof text, "train: {micro_batch: %zu, checkpoint_blocks: %zu}", rows, again);
    return fitted(text, MBL_TAPE_LORA, SIZE_MAX / 2).bytes;
}

static void memory_without_end(void **state) {
    (void)state;
    assert_int_equal(fitted("train: {micro_batch: 7}", MBL_TAPE_LORA, SIZE_MAX).rows, 7);
    assert_int_equal(fitted("train: {micro_batch: 7}", MBL_TAPE_LORA, SIZE_MAX).again, 0);
    assert_int_equal(fitted("train: {micro_batch: auto}", MBL_TAPE_LORA, SIZE_MAX).rows, THERE);
    assert_int_equal(fitted("rollout: {micro_batch: auto}", MBL_TAPE_NONE, SIZE_MAX).rows, THERE);
    assert_int_equal(fitted("train: {micro_batch: 300}", MBL_TAPE_LORA, SIZE_MAX).rows, THERE);
    assert_int_equal(fitted("train: {checkpoint_blocks: all}", MBL_TAPE_LORA, SIZE_MAX).again, 2);
    assert_int_equal(fitted("train: {checkpoint_blocks: 1}", MBL_TAPE_LORA, SIZE_MAX).again, 1);
    assert_int_equal(fitted("train: {checkpoint_blocks: all}", MBL_TAPE_NONE, SIZE_MAX).again, 0);
}

static void blocks_first_then_images(void **state) {
    (void)state;
    const size_t five = bytes_of(5, 0), fewer = bytes_of(5, 2);
    assert_true(fewer < five);
    mbl_fit_t found = fitted("train: {micro_batch: 5}", MBL_TAPE_LORA, five);
    assert_int_equal(found.rows, 5);
    assert_int_equal(found.again, 0);
    found = fitted("train: {micro_batch: 5}", MBL_TAPE_LORA, five - 1);
    assert_int_equal(found.rows, 5);
    assert_int_equal(found.again, 2);
    found = fitted("train: {micro_batch: auto}", MBL_TAPE_LORA, fewer - 1);
    assert_int_equal(found.rows, 4);
    assert_int_equal(found.again, 2);
    found = fitted("train: {micro_batch: auto, checkpoint_blocks: none}", MBL_TAPE_LORA, five - 1);
    assert_int_equal(found.rows, 4);
    assert_int_equal(found.again, 0);
}

/* Of 40 images 38 fit: two micro-batches of 20, in less memory; a number that was asked for is kept. */
static void micro_batches_are_alike(void **state) {
    (void)state;
    const size_t room = bytes_of(38, 0);
    const char *automatic = "train: {micro_batch: auto, checkpoint_blocks: none}";
    const mbl_fit_t found = fitted(automatic, MBL_TAPE_LORA, room);
    assert_int_equal(found.rows, 20);
    assert_int_equal(found.bytes, bytes_of(20, 0));
    assert_int_equal(fitted(automatic, MBL_TAPE_LORA, bytes_of(18, 0)).rows, 14);
    assert_int_equal(fitted("train: {micro_batch: 39, checkpoint_blocks: none}", MBL_TAPE_LORA, room).rows,
                     38);
}

static void limits_of_bytes(void **state) {
    char text[160];
    (void)state;
    snprintf(text, sizeof text,
             "train: {micro_batch: auto, checkpoint_blocks: none}\nlimits: {micro_batch_bytes: %zu}",
             bytes_of(3, 0));
    assert_true(fitted(text, MBL_TAPE_LORA, SIZE_MAX).rows >= 3); /* of activations alone */
    assert_true(fitted(text, MBL_TAPE_LORA, bytes_of(2, 0)).rows == 2);
}

static void not_even_one(void **state) {
    (void)state;
    mbl_fit_t out;
    const size_t one = bytes_of(1, 2);
    assert_int_equal(fitted("train: {micro_batch: auto}", MBL_TAPE_LORA, one).rows, 1);
    assert_int_equal(fit("train: {micro_batch: auto}", MBL_TAPE_LORA, one - 1, &out), MBL_ERR_MEM);
    for (const char *const *part = (const char *const[]){"train.micro_batch", "one image take", "are missing",
                                                         "train.checkpoint_blocks", NULL};
         *part; part++)
        assert_non_null(strstr(mbl_fail_message(), *part));
    assert_int_equal(fit("limits: {micro_batch_bytes: 100}", MBL_TAPE_LORA, SIZE_MAX, &out), MBL_ERR_CONFIG);
}

/* What a step is made of may not depend on the memory of a machine. */
static void units(void **state) {
    (void)state;
    mbl_config_t *config = config_of("prompts: {group_size: 6}\ntrain: {micro_batch: auto}");
    assert_int_equal(mbl_micro_batch_unit(config), 6);
    mbl_config_free(config);
    config = config_of("prompts: {group_size: 6}\ntrain: {micro_batch: 20}");
    assert_int_equal(mbl_micro_batch_unit(config), 20);
    mbl_config_free(config);
}

static void left_of_this_machine(void **state) {
    (void)state;
    mbl_comm_t *comm;
    size_t left = 0;
    assert_ok(mbl_comm_open("self", 0, &comm));
    assert_ok(mbl_micro_batch_left(comm, MBL_OK, tiny.ops, &left));
    assert_true(left > 0 && left < SIZE_MAX);
    assert_int_equal(mbl_micro_batch_left(comm, MBL_ERR_MEM, tiny.ops, &left), MBL_ERR_MEM);
    mbl_comm_close(comm);
}

static int open_tiny(void **state) {
    (void)state;
    static const char *const prompts[] = {"two blue circles"};
    tiny_open(&tiny, MBL_F32, 1, 4, 8, 2, 4, prompts, 1);
    return 0;
}

static int close_tiny(void **state) {
    (void)state;
    tiny_close(&tiny);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_without_end),
        cmocka_unit_test(blocks_first_then_images),
        cmocka_unit_test(micro_batches_are_alike),
        cmocka_unit_test(limits_of_bytes),
        cmocka_unit_test(not_even_one),
        cmocka_unit_test(units),
        cmocka_unit_test(left_of_this_machine),
    };
    return cmocka_run_group_tests(tests, open_tiny, close_tiny);
}
