/* Opening what a command needs. */
#include "run/engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int mbl_engine_threads(const mbl_config_t *config, const mbl_comm_t *comm) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (config->threads > 0)
        return (int)config->threads;
    long share = cores / (comm->local_size > 0 ? comm->local_size : 1);
    return share > 1 ? (int)share : 1;
}

mbl_dtype_t mbl_engine_dtype(const mbl_engine_t *engine) {
    return mbl_config_bf16(engine->config, engine->ops->table->place == MBL_DEVICE) ? MBL_BF16 : MBL_F32;
}

mbl_status_t mbl_engine_device(mbl_engine_t *engine) {
    const char *device = mbl_config_word("device", engine->config->device);
    int threads = mbl_engine_threads(engine->config, engine->comm);
    MBL_TRY(mbl_comm_agree(engine->comm, mbl_ops_open(device, threads, &engine->ops)));
    engine->ops->record = engine->config->cuda.graphs == MBL_CONFIG_GRAPHS_ON;
    return mbl_comm_attach(engine->comm, engine->ops);
}

static mbl_status_t open_parts(mbl_engine_t *engine) {
    const mbl_config_t *config = engine->config;
    MBL_TRY(mbl_pipeline_open(engine->ops, mbl_engine_dtype(engine), config->model.path, &engine->pipeline));
    MBL_TRY(mbl_panel_open(config->rewards.items, config->rewards.count, 1, &engine->panel));
    MBL_TRY(mbl_prompt_set_open(config, engine->pipeline, 0, &engine->train));
    return mbl_prompt_set_open(config, engine->pipeline, 1, &engine->test);
}

/* The first 64 bits of a digest. */
static uint64_t beginning_of(const char digest[MBL_SHA256_HEX]) {
    char start[17] = "";
    memcpy(start, digest, 16);
    return strtoull(start, NULL, 16);
}

/* That every rank has read the same: nodes may hold different files under one name. */
static mbl_status_t compare_parts(const mbl_engine_t *engine) {
    const mbl_config_t *config = engine->config;
    const struct {
        const char *key, *path;
        uint64_t value;
    } parts[] = {{"model.path", config->model.path, beginning_of(mbl_pipeline_digest(engine->pipeline))},
                 {"prompts.train", config->prompts.train, beginning_of(engine->train.digest)},
                 {"prompts.test", config->prompts.test, beginning_of(engine->test.digest)}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        bool same;
        MBL_TRY(mbl_comm_same(engine->comm, &parts[i].value, 1, &same));
        if (!same)
            return mbl_comm_agree(
                engine->comm, MBL_FAIL(MBL_ERR_FORMAT,
                                       "%s: %s: not the same on all ranks (checksum %016llx on this one); "
                                       "expected one content on every node",
                                       parts[i].key, parts[i].path, (unsigned long long)parts[i].value));
    }
    return MBL_OK;
}

mbl_status_t mbl_engine_open(const mbl_config_t *config, mbl_comm_t *comm, mbl_engine_t *out) {
    mbl_engine_t engine = {.config = config, .comm = comm, .k = config->rewards.count};
    mbl_status_t status = mbl_engine_device(&engine);
    if (status == MBL_OK)
        status = mbl_comm_agree(comm, open_parts(&engine));
    if (status == MBL_OK)
        status = compare_parts(&engine);
    if (status != MBL_OK) {
        mbl_comm_settle(comm, status); /* closing needs the other ranks */
        mbl_engine_close(&engine);
        return status;
    }
    *out = engine;
    return MBL_OK;
}

void mbl_engine_close(mbl_engine_t *engine) {
    mbl_prompt_set_free(engine->pipeline, &engine->test);
    mbl_prompt_set_free(engine->pipeline, &engine->train);
    mbl_panel_close(engine->panel);
    mbl_pipeline_close(engine->pipeline);
    if (engine->ops && engine->comm)
        (void)mbl_comm_attach(engine->comm, NULL);
    mbl_ops_close(engine->ops);
    memset(engine, 0, sizeof *engine);
}
