/* Opening what a command needs. */
#include "run/engine.h"

#include "base/mem.h"

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

/* Encodes the prompts of a set; frees them when it cannot. */
static mbl_status_t encode(mbl_pipeline_t *pipeline, mbl_prompt_set_t *set) {
    const char **texts = mbl_calloc(set->prompts.count, sizeof *texts);
    mbl_status_t status =
        texts ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %zu prompts", set->prompts.count);
    for (size_t i = 0; status == MBL_OK && i < set->prompts.count; i++)
        texts[i] = set->prompts.items[i].text;
    if (status == MBL_OK)
        status = mbl_pipeline_encode(pipeline, texts, set->prompts.count, &set->conditions);
    mbl_free(texts);
    if (status != MBL_OK)
        mbl_prompts_free(&set->prompts);
    return status;
}

mbl_status_t mbl_prompt_set_open(const mbl_config_t *config, mbl_pipeline_t *pipeline, int split,
                                 mbl_prompt_set_t *out) {
    mbl_prompt_set_t set;
    memset(&set, 0, sizeof set);
    MBL_TRY(mbl_prompts_load(mbl_config_word("prompts.source", config->prompts.source),
                             split ? config->prompts.test : config->prompts.train, config->seed, split,
                             split ? config->prompts.test_count : config->prompts.train_count, &set.prompts));
    MBL_TRY(encode(pipeline, &set));
    *out = set;
    return MBL_OK;
}

mbl_status_t mbl_prompt_set_read(const char *path, size_t most, mbl_pipeline_t *pipeline, size_t *exist,
                                 mbl_prompt_set_t *out) {
    mbl_prompt_set_t set;
    memset(&set, 0, sizeof set);
    MBL_TRY(mbl_prompts_load("file", path, 0, 1, 0, &set.prompts));
    size_t found = set.prompts.count;
    while (set.prompts.count > most) {
        mbl_prompt_t *last = &set.prompts.items[--set.prompts.count];
        mbl_free(last->text);
        mbl_free(last->metadata);
    }
    MBL_TRY(encode(pipeline, &set));
    *exist = found;
    *out = set;
    return MBL_OK;
}

void mbl_prompt_set_free(mbl_pipeline_t *pipeline, mbl_prompt_set_t *set) {
    if (pipeline && set->conditions.n)
        mbl_conditions_free(pipeline, &set->conditions);
    mbl_prompts_free(&set->prompts);
    memset(set, 0, sizeof *set);
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

/* FNV-1a over texts and metadata. */
static uint64_t checksum(const mbl_prompts_t *prompts) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < 2 * prompts->count; i++) {
        const char *text = i % 2 ? prompts->items[i / 2].metadata : prompts->items[i / 2].text;
        for (; text && *text; text++)
            hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
        hash = (hash ^ 0x100) * 0x100000001b3u;
    }
    return hash;
}

/* That every rank has read the same: nodes may hold different files under one name. */
static mbl_status_t compare_parts(const mbl_engine_t *engine) {
    const mbl_config_t *config = engine->config;
    const char *const digest = mbl_pipeline_digest(engine->pipeline);
    char start[17] = "";
    memcpy(start, digest, 16);
    const struct {
        const char *key, *path;
        uint64_t value;
    } parts[] = {{"model.path", config->model.path, strtoull(start, NULL, 16)},
                 {"prompts.train", config->prompts.train, checksum(&engine->train.prompts)},
                 {"prompts.test", config->prompts.test, checksum(&engine->test.prompts)}};
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
