/* Opening what a command needs. */
#include "run/engine.h"

#include "base/mem.h"

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

mbl_status_t mbl_engine_open(const mbl_config_t *config, mbl_comm_t *comm, mbl_engine_t *out) {
    mbl_engine_t engine = {.config = config, .comm = comm, .k = config->rewards.count};
    mbl_status_t status = mbl_engine_device(&engine);
    if (status == MBL_OK)
        status = mbl_comm_agree(comm, open_parts(&engine));
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
