/* marble encode: the prompts of a run through the text encoders, ahead of it. */
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "run/engine.h"
#include "run/prompt_encode.h"
#include "run/prompt_report.h"

#include <stdio.h>
#include <string.h>

static const char about[] =
    "Encodes the training and held-out prompts of RUN.yaml with the model's text encoders, into the cache\n"
    "(prompts.cache) where marble train and marble eval find them: those then start without loading an\n"
    "encoder. Needs no transformer on the device, so a small GPU does, or this machine's cores; ranks "
    "encode\n"
    "a share each:\n"
    "    marble encode run.yaml\n"
    "    mpirun -np 8 marble encode run.yaml --set prompts.cache=/shared/prompts\n"
    "A run has to have the same model, prompts.max_tokens, precision and device (cpu or cuda) to find them.\n"
    "Prompts that are there are read and compared with their digests, damaged ones encoded again. It may be\n"
    "ended at any time and started again: what has been written stays, a file at a time (64 MiB).";

/* The text encoders of the model alone, and how wide a context its transformer takes. */
static mbl_status_t open_encoder(const mbl_engine_t *engine, mbl_encoder_t *out) {
    const char *folder = engine->config->model.path;
    const mbl_text_options_t options = mbl_engine_text(engine->config);
    mbl_dit_sizes_t sizes = {.context_width = 0};
    json_t *json = NULL;
    char *path = mbl_format("%s/transformer/config.json", folder);
    mbl_status_t status = path ? mbl_dit_config_read(path, &json) : MBL_FAIL(MBL_ERR_MEM, "no memory");
    if (status == MBL_OK)
        status = mbl_dit_config_sizes(path, json, &sizes);
    json_decref(json);
    mbl_free(path);
    MBL_TRY(status);
    *out = (mbl_encoder_t){engine->ops, mbl_engine_dtype(engine), NULL, sizes.context_width};
    return mbl_text_open(out->ops, out->dtype, folder, &options, &out->text);
}

static void say(const mbl_engine_t *engine, const mbl_prompt_cache_t *cache,
                const mbl_prompt_encoded_t *done) {
    char took[32];
    if (engine->comm->rank != 0)
        return;
    printf("%zu prompts in %s (%.1f MB): %zu encoded now", done->prompts, mbl_prompt_cache_path(cache),
           1e-6 * (double)done->bytes, done->encoded);
    if (done->damaged)
        printf(", %zu of them because their records were damaged", done->damaged);
    printf(", in %s\n", mbl_duration(done->seconds, took));
}

static mbl_status_t encode_sets(mbl_engine_t *engine, const mbl_encoder_t *encoder) {
    mbl_prompt_set_t negative = {.embeds = NULL};
    mbl_prompt_set_t *const sets[] = {&engine->train, &engine->test, &negative};
    const mbl_prompt_encode_t encode = {engine->config, engine->comm, encoder, true};
    mbl_prompt_encoded_t done;
    mbl_status_t status = mbl_prompt_set_take(engine->config, encoder, 0, &engine->train);
    if (status == MBL_OK)
        status = mbl_prompt_set_take(engine->config, encoder, 1, &engine->test);
    if (status == MBL_OK)
        status = mbl_prompt_set_negative(engine->config, encoder, &negative);
    if (status == MBL_OK)
        status = mbl_prompt_report_cut_sets(engine, encoder->text);
    status = mbl_comm_agree(engine->comm, status);
    if (status == MBL_OK)
        status = mbl_engine_same_prompts(engine);
    if (status == MBL_OK)
        status = mbl_prompt_sets_encode(&encode, sets, negative.prompts.count ? 3 : 2, &engine->cache, &done);
    if (status == MBL_OK)
        say(engine, engine->cache, &done);
    mbl_prompt_set_free(&negative);
    return status;
}

static mbl_status_t encode_run(const mbl_run_t *run) {
    mbl_engine_t engine = {.config = run->config, .comm = run->comm};
    mbl_encoder_t encoder = {.text = NULL};
    mbl_status_t status = mbl_engine_device(&engine);
    if (status == MBL_OK)
        status = mbl_comm_agree(run->comm, open_encoder(&engine, &encoder));
    if (status == MBL_OK)
        status = encode_sets(&engine, &encoder);
    status = mbl_comm_settle(run->comm, status); /* closing needs the other ranks */
    mbl_text_close(encoder.text);
    mbl_engine_close(&engine);
    return status;
}

/* More ranks than an epoch has images have prompts to encode nevertheless. */
static mbl_status_t check(const mbl_config_t *config, size_t ranks) {
    const size_t images = config->prompts.groups * config->prompts.group_size;
    return mbl_config_check(config, ranks < images ? ranks : images);
}

int mbl_cmd_encode(int argc, char **argv) {
    bool helped = false;
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    const mbl_arg_t args[] = {{"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE",
                               "overrides a key of RUN.yaml, as in --set prompts.max_tokens=256", 0, 0, 0,
                               NULL}};
    const mbl_args_t spec = {"encode", "RUN.yaml", about, args, sizeof args / sizeof *args, 1, 1};
    mbl_run_t run;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = mbl_run_open(rest.items[0], &sets, check, &run);
    int code = mbl_status_exit_code(status);
    if (status == MBL_OK)
        code = mbl_run_close(&run, encode_run(&run));
    mbl_free(rest.items);
    mbl_free(sets.items);
    return code;
}
