/* Opening what a command needs. */
#include "run/engine.h"

#include "base/log.h"
#include "base/mem.h"
#include "run/prompt_encode.h"
#include "run/stop.h"

#include <stdlib.h>
#include <string.h>

/* How many ranks on this one's host have the same word; words [size]. */
static size_t alike(const mbl_comm_t *comm, uint64_t (*words)[3], size_t word) {
    const uint64_t *own = words[comm->rank];
    size_t n = 0;
    for (int r = 0; r < comm->size; r++)
        n += words[r][0] == own[0] && words[r][word] == own[word];
    return n;
}

/* Open MPI's mpirun binds a rank to a core (two CPUs at most), or to a socket, unless it is asked not to. */
static void advise(const mbl_comm_t *comm, const mbl_cpus_t *cpus, const mbl_threads_t *threads) {
    bool few = cpus->count <= 2 && 2 * cpus->count * (size_t)comm->local_size <= cpus->online;
    if (comm->rank == 0 && comm->size > 1 && few && threads->by_mask && getenv("OMPI_COMM_WORLD_SIZE"))
        MBL_WARN("%s; mpirun --bind-to none, or --map-by slot:PE=N, gives a rank more", threads->text);
}

mbl_status_t mbl_engine_threads(const mbl_config_t *config, mbl_comm_t *comm, mbl_threads_t *out) {
    mbl_cpus_t cpus;
    uint64_t(*words)[3] = mbl_calloc((size_t)comm->size, sizeof *words); /* host, mask, group of every rank */
    mbl_status_t status =
        mbl_comm_agree(comm, words ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %d ranks", comm->size));
    mbl_cpus_find(&cpus);
    const uint64_t own[3] = {(uint64_t)comm->host, cpus.mask, cpus.group};
    if (status == MBL_OK)
        status = mbl_comm_allgather(comm, own, words, sizeof own);
    if (status == MBL_OK)
        mbl_threads_choose(config->threads, getenv("OMP_NUM_THREADS"), &cpus, alike(comm, words, 1),
                           alike(comm, words, 2), out);
    if (status == MBL_OK)
        advise(comm, &cpus, out);
    mbl_free(words);
    return status;
}

mbl_dtype_t mbl_engine_dtype(const mbl_engine_t *engine) {
    return mbl_config_bf16(engine->config, mbl_ops_bf16_is_native(engine->ops)) ? MBL_BF16 : MBL_F32;
}

mbl_status_t mbl_engine_device(mbl_engine_t *engine) {
    const char *device = mbl_config_word("device", engine->config->device);
    MBL_TRY(mbl_engine_threads(engine->config, engine->comm, &engine->threads));
    MBL_RECORD("%s", engine->threads.text);
    MBL_TRY(mbl_comm_agree(engine->comm, mbl_ops_open(device, engine->threads.count, &engine->ops)));
    engine->ops->record = engine->config->cuda.graphs == MBL_CONFIG_GRAPHS_ON;
    return mbl_comm_attach(engine->comm, engine->ops);
}

mbl_text_options_t mbl_engine_text(const mbl_config_t *config) {
    return (mbl_text_options_t){.max_tokens = config->prompts.max_tokens,
                                .low_memory = config->model.low_memory == MBL_CONFIG_LOW_MEMORY_ON};
}

mbl_sigma_schedule_t mbl_engine_schedule(const mbl_config_t *config, bool rollout) {
    return (mbl_sigma_schedule_t){config->rollout.schedule, config->rollout.shift,
                                  rollout && config->rollout.integer_timesteps == MBL_CONFIG_ON};
}

mbl_status_t mbl_engine_resize(const mbl_config_t *config, mbl_pipeline_t *pipeline) {
    char where[256];
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_pipeline_resize(pipeline, config->rollout.height, config->rollout.width);
    mbl_fail_quiet(0);
    if (status != MBL_OK)
        return MBL_FAIL(status, "%s, rollout.width: %s",
                        mbl_config_where(config, "rollout.height", where, sizeof where), mbl_fail_message());
    return mbl_pipeline_set_decoding(pipeline, config->rollout.decode_bytes, config->rollout.decode_tile);
}

mbl_status_t mbl_engine_encode_negative(mbl_engine_t *engine) {
    const char *negative = engine->config->eval.negative;
    if (engine->config->eval.guidance <= 1)
        return MBL_OK;
    return mbl_pipeline_encode(engine->pipeline, &negative, 1, &engine->negative);
}

mbl_guidance_t mbl_engine_guidance(const mbl_config_t *config, const mbl_conditions_t *negative) {
    mbl_guidance_t guidance = {.scale = config->eval.guidance,
                               .negative = negative,
                               .skip_scale = config->eval.skip_scale,
                               .start = config->eval.skip_start,
                               .stop = config->eval.skip_stop};
    for (size_t i = 0; i < config->eval.skip_layers.count; i++)
        guidance.skip |= (uint64_t)1 << config->eval.skip_layers.items[i];
    return guidance;
}

size_t mbl_engine_scorer_threads(mbl_space_t space, int threads) {
    size_t free = space == MBL_DEVICE && threads > 1 ? (size_t)threads - 1 : 1;
    return free < MBL_SCORER_THREADS ? free : MBL_SCORER_THREADS;
}

mbl_status_t mbl_engine_scorers(mbl_engine_t *engine) {
    const mbl_config_t *config = engine->config;
    const size_t threads = mbl_engine_scorer_threads(engine->ops->table->space, engine->threads.count);
    return mbl_scorer_pool_open(config->rewards.items, config->rewards.count, threads, mbl_stop_flag(),
                                &engine->pool);
}

static mbl_status_t open_parts(mbl_engine_t *engine) {
    const mbl_config_t *config = engine->config;
    const mbl_text_options_t text = mbl_engine_text(config);
    mbl_log_progress("loading the model", 0, 0);
    MBL_TRY(mbl_pipeline_open_shared(engine->ops, mbl_engine_dtype(engine), config->model.path, &text,
                                     &engine->pipeline));
    MBL_TRY(mbl_engine_resize(config, engine->pipeline));
    mbl_log_progress("starting the scorers", 0, 0);
    MBL_TRY(mbl_engine_scorers(engine));
    const mbl_encoder_t encoder = mbl_pipeline_encoder(engine->pipeline);
    MBL_TRY(mbl_prompt_set_take(config, &encoder, 0, &engine->train));
    return mbl_prompt_set_take(config, &encoder, 1, &engine->test);
}

/* The digest of the model's files, which the first rank of every host computes for its host. Collective. */
static mbl_status_t share_digest(mbl_engine_t *engine) {
    mbl_comm_t *comm = engine->comm;
    char(*digests)[MBL_SHA256_HEX] = mbl_calloc((size_t)comm->size, sizeof *digests),
    own[MBL_SHA256_HEX] = "";
    mbl_status_t status =
        digests ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for the digests of %d ranks", comm->size);
    if (status == MBL_OK && comm->local_rank == 0)
        status =
            mbl_pipeline_digest_of(engine->config->model.path, engine->threads.count, mbl_stop_flag(), own);
    status = mbl_comm_agree(comm, status);
    if (status == MBL_OK)
        status = mbl_comm_allgather(comm, own, digests, sizeof own);
    if (status == MBL_OK)
        mbl_pipeline_set_digest(engine->pipeline, digests[comm->host]);
    mbl_free(digests);
    return status;
}

/* The first 64 bits of a digest. */
static uint64_t beginning_of(const char digest[MBL_SHA256_HEX]) {
    char start[17] = "";
    memcpy(start, digest, 16);
    return strtoull(start, NULL, 16);
}

/* That every rank has read the same: nodes may hold different files under one name. */
mbl_status_t mbl_engine_same_prompts(const mbl_engine_t *engine) {
    const mbl_config_t *config = engine->config;
    const struct {
        const char *key, *path;
        uint64_t value;
    } parts[] = {{"model.path", config->model.path,
                  engine->pipeline ? beginning_of(mbl_pipeline_digest(engine->pipeline)) : 0},
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

/* The one prompt of a set, on the device for good. */
static mbl_status_t keep_negative(mbl_engine_t *engine, const mbl_prompt_set_t *set) {
    const uint32_t only = 0;
    if (set->prompts.count == 0)
        return MBL_OK;
    MBL_TRY(mbl_pipeline_conditions(engine->pipeline, 1, &engine->negative));
    MBL_TRY(mbl_embeds_room(set->embeds, 1));
    MBL_TRY(mbl_embeds_fetch(set->embeds, &only, 1));
    return mbl_conditions_gather(engine->ops, mbl_embeds_conditions(set->embeds), &only, &engine->negative);
}

static mbl_status_t encode_prompts(mbl_engine_t *engine) {
    mbl_prompt_set_t negative;
    mbl_prompt_set_t *const sets[] = {&engine->train, &engine->test, &negative};
    const mbl_encoder_t encoder = mbl_pipeline_encoder(engine->pipeline);
    const mbl_prompt_encode_t encode = {engine->config, engine->comm, &encoder, false};
    MBL_TRY(mbl_comm_agree(engine->comm, mbl_prompt_set_negative(engine->config, &encoder, &negative)));
    mbl_status_t status =
        mbl_prompt_sets_encode(&encode, sets, negative.prompts.count ? 3 : 2, &engine->cache, NULL);
    if (status == MBL_OK)
        status = mbl_comm_agree(engine->comm, keep_negative(engine, &negative));
    mbl_prompt_set_free(&negative);
    return status;
}

mbl_status_t mbl_engine_open(const mbl_config_t *config, mbl_comm_t *comm, mbl_engine_t *out) {
    mbl_engine_t engine = {.config = config, .comm = comm, .k = config->rewards.count};
    mbl_status_t status = mbl_engine_device(&engine);
    if (status == MBL_OK) {
        mbl_ops_stop(engine.ops, mbl_stop_flag()); /* a large model and its prompts take minutes */
        status = mbl_comm_agree(comm, open_parts(&engine));
    }
    if (status == MBL_OK)
        status = share_digest(&engine);
    if (status == MBL_OK)
        status = mbl_engine_same_prompts(&engine);
    if (status == MBL_OK)
        status = encode_prompts(&engine);
    if (status != MBL_OK) {
        mbl_comm_settle(comm, status); /* closing needs the other ranks */
        mbl_engine_close(&engine);
        return status;
    }
    mbl_ops_stop(engine.ops, NULL);
    *out = engine;
    return MBL_OK;
}

void mbl_engine_close(mbl_engine_t *engine) {
    if (engine->negative.n)
        mbl_conditions_free(engine->ops, &engine->negative);
    mbl_prompt_set_free(&engine->test);
    mbl_prompt_set_free(&engine->train);
    mbl_prompt_cache_close(engine->cache);
    mbl_scorer_pool_close(engine->pool);
    mbl_pipeline_close(engine->pipeline);
    if (engine->ops && engine->comm)
        (void)mbl_comm_attach(engine->comm, NULL);
    mbl_ops_close(engine->ops);
    memset(engine, 0, sizeof *engine);
}
