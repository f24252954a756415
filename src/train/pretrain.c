/* Pretraining of a small base model on the signs world. */
#include "train/pretrain.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/quote.h"
#include "base/share.h"
#include "data/signs/signs.h"
#include "rl/optimizer.h"
#include "run/evaluate.h"
#include "run/micro_batch.h"
#include "train/pretrain_state.h"
#include "run/resume.h"
#include "run/rundir.h"
#include "run/stop.h"

#include <math.h>
#include <string.h>

/* Images of a micro-batch: x0, noise, xt, v and dv [rows, C, H, W], t [rows]. */
enum { X0, NOISE, XT, V, DV, N_IMAGES };

typedef struct {
    mbl_pretrain_state_t state;
    mbl_engine_t engine;
    mbl_dit_t *model;
    mbl_tape_t *tape;
    mbl_tensor_t image[N_IMAGES], t, mix, sample;
    mbl_conditions_t conditions;
    mbl_tensor_t gradient, shard; /* [padded], [count] f32 */
    mbl_signs_scene_t *scenes;    /* of the training prompts */
    uint32_t *of_kind[3];         /* prompts by kind, */
    uint32_t n_of_kind[3];        /* and how many */
    size_t rows, elements;        /* micro-batch; per image */
    size_t broken;                /* steps in a row up to now that were not finite */
    float *host;                  /* [rows, elements] */
    float *host_mix;              /* [MBL_ROWS_TERMS, rows] */
    int64_t *host_sample;
    uint32_t *prompt;
    mbl_evaluator_t *evaluator;
    mbl_sampler_plan_t plan;
    mbl_config_t kept; /* see keep_schedule; shallow */
    mbl_rundir_t rundir;
    const char *out_dir;
} pretrain_t;

/* The new transformer in the words of config.json, which are those of pretrain.model; NULL without memory. */
static json_t *fresh_config(const mbl_config_t *config) {
    json_t *dual = json_array();
    int bad = 0;
    for (size_t i = 0; i < config->pretrain.model.dual_attention_layers.count; i++)
        bad |= json_array_append_new(
            dual, json_integer((json_int_t)config->pretrain.model.dual_attention_layers.items[i]));
    json_t *made = json_object();
    bad |= json_object_set_new(made, "dual_attention_layers", dual);
    if (config->pretrain.model.qk_norm == MBL_CONFIG_QK_NORM_RMS)
        bad |= json_object_set_new(made, "qk_norm", json_string("rms_norm"));
    const struct {
        const char *key;
        size_t value;
    } sizes[] = {{"sample_size", config->pretrain.model.sample_size},
                 {"patch_size", config->pretrain.model.patch_size},
                 {"in_channels", config->pretrain.model.in_channels},
                 {"out_channels", config->pretrain.model.in_channels},
                 {"num_layers", config->pretrain.model.num_layers},
                 {"attention_head_dim", config->pretrain.model.attention_head_dim},
                 {"num_attention_heads", config->pretrain.model.num_attention_heads},
                 {"joint_attention_dim", config->pretrain.model.joint_attention_dim},
                 {"caption_projection_dim", config->pretrain.model.caption_projection_dim},
                 {"pooled_projection_dim", config->pretrain.model.pooled_projection_dim},
                 {"pos_embed_max_size", config->pretrain.model.pos_embed_max_size}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        bad |= json_object_set_new(made, sizes[i].key, json_integer((json_int_t)sizes[i].value));
    if (bad) {
        json_decref(made);
        return NULL;
    }
    return made;
}

/* Tokenizer, text encoder and scheduler of the new model folder: rank 0 writes, all read. */
static mbl_status_t create_folder(const mbl_config_t *config, mbl_comm_t *comm, const char *folder) {
    const char *words[256];
    size_t n = 0;
    mbl_status_t status = MBL_OK;
    while (n < 256 && mbl_signs_word(n)) {
        words[n] = mbl_signs_word(n);
        n++;
    }
    if (comm->rank == 0)
        status = mbl_pipeline_create(
            folder, words, n, config->pretrain.model.text_tokens, config->pretrain.model.joint_attention_dim,
            config->pretrain.model.text_layers, config->pretrain.model.pooled_projection_dim, config->seed);
    return mbl_comm_agree(comm, status);
}

/* What every training prompt asks for, and the prompts of each kind. */
static mbl_status_t sort_prompts(pretrain_t *p) {
    const mbl_prompts_t *prompts = &p->engine.train.prompts;
    MBL_ALLOC(p->scenes, prompts->count);
    for (int kind = 0; kind < 3; kind++)
        MBL_ALLOC(p->of_kind[kind], prompts->count);
    for (size_t i = 0; i < prompts->count; i++) {
        if (!mbl_signs_parse(prompts->items[i].text, &p->scenes[i]))
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "\"%s\" is no sentence of the signs example; pretraining draws signs only",
                            prompts->items[i].text);
        int kind = p->scenes[i].kind;
        p->of_kind[kind][p->n_of_kind[kind]++] = (uint32_t)i;
    }
    for (int kind = 0; kind < 3; kind++)
        if (p->n_of_kind[kind] == 0)
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "prompts.train_count: %zu sentences lack one of the three kinds (signs, shapes, "
                            "horizons); expected at least 4",
                            prompts->count);
    return MBL_OK;
}

static mbl_status_t open_engine(pretrain_t *p, const mbl_config_t *config, mbl_comm_t *comm,
                                const char *folder) {
    mbl_engine_t *e = &p->engine;
    e->config = config;
    e->comm = comm;
    e->k = config->rewards.count;
    MBL_TRY(mbl_engine_device(e));
    json_t *fresh = fresh_config(config);
    if (!fresh)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the new model's configuration");
    mbl_status_t status =
        mbl_pipeline_new(e->ops, mbl_engine_dtype(e), folder, fresh, config->seed, &e->pipeline);
    json_decref(fresh);
    MBL_TRY(status);
    MBL_TRY(mbl_engine_scorers(e));
    const mbl_encoder_t encoder = mbl_pipeline_encoder(e->pipeline);
    MBL_TRY(mbl_prompt_set_open(config, &encoder, 0, &e->train));
    MBL_TRY(mbl_prompt_set_open(config, &encoder, 1, &e->test));
    MBL_TRY(mbl_engine_encode_negative(e));
    p->model = mbl_pipeline_model(e->pipeline);
    return sort_prompts(p);
}

static mbl_status_t make_buffers(pretrain_t *p, size_t left) {
    mbl_ops_t *ops = p->engine.ops;
    size_t c, height, width, tokens = mbl_pipeline_context_tokens(p->engine.pipeline),
                             padded = p->state.padded;
    mbl_pipeline_latent(p->engine.pipeline, &c, &height, &width);
    const mbl_config_t *config = p->engine.config;
    const size_t most = mbl_share(config->pretrain.batch, (size_t)p->engine.comm->size, 0).n;
    const mbl_passes_t passes = {
        .pipeline = p->engine.pipeline, .kind = MBL_TAPE_FULL, .there = most, .left = left};
    mbl_fit_t fit;
    MBL_TRY(mbl_micro_batch_fit(config, &passes, &fit));
    p->rows = fit.rows;
    p->elements = c * height * width;
    for (int i = 0; i < N_IMAGES; i++)
        MBL_TRY(mbl_tensor_new(ops, MBL_F32, &p->image[i], 4, p->rows, c, height, width));
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &p->t, 1, p->rows));
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &p->mix, 2, (size_t)MBL_ROWS_TERMS, p->rows));
    MBL_TRY(mbl_tensor_new(ops, MBL_I64, &p->sample, 1, p->rows));
    MBL_TRY(mbl_pipeline_conditions(p->engine.pipeline, p->rows, &p->conditions));
    MBL_TRY(mbl_embeds_room(p->engine.train.embeds, p->rows));
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &p->gradient, 1, padded));
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &p->shard, 1, p->state.optimizer.count));
    MBL_ALLOC(p->host, p->rows * p->elements);
    MBL_ALLOC(p->host_mix, MBL_ROWS_TERMS * p->rows);
    MBL_ALLOC(p->host_sample, p->rows);
    MBL_ALLOC(p->prompt, p->rows);
    const mbl_tape_shape_t shape = {MBL_TAPE_FULL, p->rows, height, width, tokens, fit.again};
    return mbl_tape_new_of(p->model, NULL, &shape, &p->tape);
}

static mbl_status_t make_plan(pretrain_t *p, const mbl_config_t *config) {
    const mbl_sigma_schedule_t schedule = mbl_engine_schedule(config, false);
    return mbl_sampler_plan(config->eval.solver, config->eval.steps, &schedule, &p->plan);
}

static mbl_status_t open_evaluator(pretrain_t *p, size_t left) {
    const mbl_config_t *config = p->engine.config;
    const mbl_passes_t passes = {.pipeline = p->engine.pipeline, .there = config->eval.prompts, .left = left};
    mbl_evaluator_options_t options = {.comm = p->engine.comm,
                                       .pipeline = p->engine.pipeline,
                                       .pool = p->engine.pool,
                                       .set = &p->engine.test,
                                       .k = p->engine.k,
                                       .images = config->eval.prompts,
                                       .plan = &p->plan,
                                       .guidance = mbl_engine_guidance(config, &p->engine.negative),
                                       .seed = config->eval.seed};
    mbl_fit_t fit;
    MBL_TRY(make_plan(p, config));
    MBL_TRY(mbl_micro_batch_fit(config, &passes, &fit));
    options.micro_batch = fit.rows;
    return mbl_evaluator_new(&options, &p->evaluator);
}

/* Training has what the evaluation leaves of the memory, which gets a part. */
static mbl_status_t open_all(pretrain_t *p, const mbl_config_t *config, mbl_comm_t *comm) {
    enum { PART = 4 };
    char folder[512];
    size_t left;
    MBL_TRY(mbl_rundir_join(p->out_dir, "model", folder, sizeof folder));
    MBL_TRY(create_folder(config, comm, folder));
    mbl_status_t status = open_engine(p, config, comm, folder);
    if (status == MBL_OK)
        status = mbl_pretrain_state_new(&p->state, p->engine.ops, p->model, comm);
    MBL_TRY(mbl_micro_batch_left(comm, status, p->engine.ops, &left));
    const size_t part = left / PART;
    MBL_TRY(make_buffers(p, left == SIZE_MAX ? SIZE_MAX : left - part));
    return open_evaluator(p, left == SIZE_MAX ? SIZE_MAX : part);
}

static void close_all(pretrain_t *p) {
    mbl_ops_t *ops = p->engine.ops;
    mbl_rundir_close(&p->rundir);
    mbl_evaluator_free(p->evaluator);
    mbl_tape_free(p->tape);
    mbl_tensor_t *tensors[] = {&p->t, &p->mix, &p->sample, &p->gradient, &p->shard};
    if (ops)
        mbl_conditions_free(ops, &p->conditions);
    for (size_t i = 0; ops && i < sizeof tensors / sizeof *tensors; i++)
        mbl_tensor_free(ops, tensors[i]);
    for (int i = 0; ops && i < N_IMAGES; i++)
        mbl_tensor_free(ops, &p->image[i]);
    mbl_pretrain_state_free(&p->state);
    mbl_free(p->host);
    mbl_free(p->host_mix);
    mbl_free(p->host_sample);
    mbl_free(p->prompt);
    mbl_free(p->scenes);
    for (int kind = 0; kind < 3; kind++)
        mbl_free(p->of_kind[kind]);
    mbl_engine_close(&p->engine);
}

/* y = mix_0 a + mix_1 b (+ mix_2 c) per image. */
static mbl_status_t combine(pretrain_t *p, const mbl_tensor_t *y, const mbl_tensor_t *mix,
                            const mbl_tensor_t *a, const mbl_tensor_t *b, const mbl_tensor_t *c) {
    const mbl_tensor_t *from[] = {y, a, b, c};
    mbl_tensor_t flat[4];
    for (int i = 0; i < (c ? 4 : 3); i++)
        flat[i] = mbl_tensor_reshape(from[i], 2, y->dim[0], p->elements);
    return MBL_OP(p->engine.ops, rows_combine, .y = &flat[0], .coefficient = mix,
                  .x = {&flat[1], &flat[2], c ? &flat[3] : NULL});
}

/* Draws n training images from global position `first` of step `step`: x0, noise, t, xt, conditions. */
static mbl_status_t draw_rows(pretrain_t *p, size_t step, size_t first, size_t n) {
    const mbl_config_t *config = p->engine.config;
    mbl_ops_t *ops = p->engine.ops;
    for (size_t i = 0; i < n; i++) {
        uint8_t rgb[MBL_SIGNS_SIZE * MBL_SIGNS_SIZE * 3];
        uint64_t image = step * config->pretrain.batch + first + i;
        mbl_rng_t rng = mbl_rng(config->seed, MBL_RNG_TRAIN, (uint32_t)step, first + i);
        float normal[2];
        mbl_rng_normal2(&rng, normal);
        double t =
            1 /
            (1 + exp(-(config->pretrain.timestep_mean + config->pretrain.timestep_std * (double)normal[0])));
        if (config->pretrain.images)
            image = mbl_rng_below(&rng, (uint32_t)config->pretrain.images);
        rng = mbl_rng(config->seed, MBL_RNG_WORLD, 0, image);
        double which = (double)mbl_rng_uniform(&rng), text = config->pretrain.text_share;
        int kind = which < text                                  ? MBL_SIGNS_TEXT
                   : which < text + config->pretrain.count_share ? MBL_SIGNS_COUNT
                                                                 : MBL_SIGNS_HORIZON;
        p->prompt[i] = p->of_kind[kind][mbl_rng_below(&rng, p->n_of_kind[kind])];
        mbl_signs_draw(&p->scenes[p->prompt[i]], &rng, rgb);
        mbl_image_to_chw(rgb, MBL_SIGNS_SIZE, MBL_SIGNS_SIZE, p->host + i * p->elements);
        p->host_sample[i] = (int64_t)(first + i);
        p->host_mix[i] = (float)(1 - t);
        p->host_mix[n + i] = (float)t;
    }
    mbl_tensor_t x0 = mbl_tensor_rows(&p->image[X0], 0, n), noise = mbl_tensor_rows(&p->image[NOISE], 0, n);
    mbl_tensor_t xt = mbl_tensor_rows(&p->image[XT], 0, n), t = mbl_tensor_rows(&p->t, 0, n);
    mbl_tensor_t sample = mbl_tensor_rows(&p->sample, 0, n),
                 flat = mbl_tensor_reshape(&noise, 2, n, p->elements);
    mbl_tensor_t mix = mbl_tensor_of(p->mix.data, MBL_F32, p->mix.space, 2, (size_t)2, n);
    mbl_conditions_t conditions = mbl_conditions_rows(&p->conditions, 0, n);
    MBL_TRY(mbl_tensor_upload(ops, &x0, p->host));
    MBL_TRY(mbl_tensor_upload(ops, &t, p->host_mix + n));
    MBL_TRY(mbl_tensor_upload(ops, &mix, p->host_mix));
    MBL_TRY(mbl_tensor_upload(ops, &sample, p->host_sample));
    MBL_TRY(MBL_OP(ops, normal, .y = &flat, .sample = &sample, .seed = config->seed, .purpose = MBL_RNG_NOISE,
                   .step = (uint32_t)step));
    MBL_TRY(combine(p, &xt, &mix, &x0, &noise, NULL));
    MBL_TRY(mbl_embeds_fetch(p->engine.train.embeds, p->prompt, n));
    return mbl_conditions_gather(ops, mbl_embeds_conditions(p->engine.train.embeds), p->prompt, &conditions);
}

/* Forward and backward of n rows; adds this micro-batch's share of the mean squared velocity error to *loss.
 */
static mbl_status_t learn_rows(pretrain_t *p, size_t n, double *loss) {
    mbl_ops_t *ops = p->engine.ops;
    mbl_tensor_t view[N_IMAGES], mix = mbl_tensor_of(p->mix.data, MBL_F32, p->mix.space, 2, (size_t)3, n);
    mbl_tensor_t t = mbl_tensor_rows(&p->t, 0, n);
    mbl_conditions_t conditions = mbl_conditions_rows(&p->conditions, 0, n);
    double total = (double)p->engine.config->pretrain.batch * (double)p->elements, square;
    for (int i = 0; i < N_IMAGES; i++)
        view[i] = mbl_tensor_rows(&p->image[i], 0, n);
    mbl_dit_input_t input = {.x = &view[XT], .t = &t, .conditions = &conditions};
    MBL_TRY(mbl_dit_forward(p->model, NULL, &input, p->tape, &view[V]));
    for (size_t i = 0; i < n; i++) {
        p->host_mix[i] = p->host_mix[2 * n + i] = (float)(2 / total);
        p->host_mix[n + i] = (float)(-2 / total);
    }
    MBL_TRY(mbl_tensor_upload(ops, &mix, p->host_mix));
    MBL_TRY(combine(p, &view[DV], &mix, &view[V], &view[NOISE], &view[X0]));
    mbl_tensor_t row = mbl_tensor_reshape(&view[DV], 2, (size_t)1, n * p->elements),
                 gram = MBL_TENSOR_2(&square, MBL_F64, 1, 1);
    MBL_TRY(MBL_OP(ops, gram, .gram = &gram, .x = &row));
    *loss += square * total / 4;
    mbl_tensor_t own = mbl_tensor_rows(&p->gradient, 0, p->state.size); /* what is behind is padding */
    mbl_gradient_sink_t sink = {.full = &own};
    return mbl_dit_backward(p->model, NULL, &input, p->tape, &view[DV], &sink);
}

/* A step whose loss or gradient is not finite moves nothing; so many in a row end the run. */
static mbl_status_t leave_out(pretrain_t *p, size_t step) {
    size_t most = p->engine.config->alarms.non_finite;
    p->state.optimizer.steps++;
    if (++p->broken == most)
        return MBL_FAIL(
            MBL_ERR_NUMERIC,
            "step %zu: the loss or the gradient is not finite, %zu steps in a row (alarms.non_finite); "
            "lower pretrain.lr and go on from the last checkpoint",
            step + 1, most);
    if (p->broken == 1 && p->engine.comm->rank == 0)
        MBL_WARN("step %zu: the loss or the gradient is not finite; the step is left out", step + 1);
    return MBL_OK;
}

/* Sum of the gradients over ranks, global norm, AdamW with warm-up, EMA. */
static mbl_status_t update(pretrain_t *p, size_t step, double loss, double *norm) {
    const mbl_config_t *config = p->engine.config;
    mbl_comm_t *comm = p->engine.comm;
    mbl_ops_t *ops = p->engine.ops;
    double square,
        warm = config->pretrain.warmup ? fmin(1, (double)(step + 1) / (double)config->pretrain.warmup) : 1;
    mbl_tensor_t row = mbl_tensor_reshape(&p->shard, 2, (size_t)1, p->state.optimizer.count);
    mbl_tensor_t gram = MBL_TENSOR_2(&square, MBL_F64, 1, 1);
    MBL_TRY(mbl_comm_reduce_scatter_tensor(comm, &p->gradient, &p->shard));
    MBL_TRY(MBL_OP(ops, gram, .gram = &gram, .x = &row));
    MBL_TRY(mbl_comm_allreduce(comm, &square, 1, MBL_COMM_F64, MBL_COMM_SUM));
    *norm = sqrt(square);
    if (!isfinite(square) || !isfinite(loss))
        return leave_out(p, step);
    p->broken = 0;
    mbl_optimizer_options_t options = {.lr = config->pretrain.lr * warm,
                                       .beta1 = config->train.adam_beta1,
                                       .beta2 = config->train.adam_beta2,
                                       .eps = config->train.adam_eps,
                                       .weight_decay = config->pretrain.weight_decay,
                                       .grad_clip = config->pretrain.grad_clip};
    MBL_TRY(mbl_optimizer_step(comm, &p->state.optimizer, &options, &p->shard, *norm, &p->state.master));
    double decay = fmin((2 + (double)step) / (11 + (double)step), config->pretrain.ema);
    MBL_TRY(MBL_OP(ops, axpby, .y = &p->state.ema, .x = &p->state.master, .a = 1 - decay, .b = decay));
    return mbl_pretrain_state_use(&p->state, &p->state.master);
}

static mbl_status_t one_step(pretrain_t *p, size_t step) {
    const mbl_config_t *config = p->engine.config;
    p->engine.comm->step = step + 1;
    const mbl_share_t share =
        mbl_share(config->pretrain.batch, (size_t)p->engine.comm->size, (size_t)p->engine.comm->rank);
    const size_t last = share.first + share.n;
    double loss = 0, norm, start = mbl_now();
    char date[32];
    mbl_log_progress("pretraining, steps", step, config->pretrain.steps);
    MBL_TRY(mbl_tensor_zero(p->engine.ops, &p->gradient));
    for (size_t i = share.first; i < last; i += p->rows) {
        size_t n = last - i < p->rows ? last - i : p->rows;
        MBL_TRY(draw_rows(p, step, i, n));
        MBL_TRY(learn_rows(p, n, &loss));
    }
    MBL_TRY(mbl_comm_allreduce(p->engine.comm, &loss, 1, MBL_COMM_F64, MBL_COMM_SUM));
    MBL_TRY(update(p, step, loss, &norm));
    if (!p->rundir.metrics)
        return MBL_OK;
    double seconds = mbl_lap(&start);
    if ((step + 1) % 20 == 0 || step == 0) {
        char left[32];
        MBL_INFO("pretrain %zu/%zu  loss %.4f  grad %.3f  %.0f images/s  left %s", step + 1,
                 config->pretrain.steps, loss, norm, (double)config->pretrain.batch / seconds,
                 mbl_duration(seconds * (double)(config->pretrain.steps - step - 1), left));
    }
    return mbl_jsonl_write(p->rundir.metrics,
                           json_pack("{s:I,s:s,s:o,s:o,s:{s:f}}", "step", (json_int_t)(step + 1), "time",
                                     mbl_date(date), "loss", mbl_jsonl_real(loss), "grad_norm",
                                     mbl_jsonl_real(norm), "seconds", "total", seconds));
}

static mbl_status_t evaluate(pretrain_t *p, size_t step) {
    mbl_eval_score_t scores[MBL_MAX_REWARDS];
    MBL_TRY(mbl_pretrain_state_use(&p->state, &p->state.ema));
    mbl_status_t status = mbl_evaluator_run(p->evaluator, NULL, scores);
    MBL_TRY(mbl_pretrain_state_use(&p->state, &p->state.master));
    MBL_TRY(status);
    MBL_TRY(mbl_rundir_eval(&p->rundir, step, p->engine.config, &p->engine.test, scores, NULL, NULL));
    return mbl_rundir_samples(&p->rundir, step, p->engine.config, p->evaluator);
}

static mbl_status_t run(pretrain_t *p, const volatile sig_atomic_t *stop) {
    const mbl_config_t *config = p->engine.config;
    for (size_t step = p->state.optimizer.steps; step < config->pretrain.steps; step++) {
        MBL_TRY(one_step(p, step));
        size_t done = step + 1, last = done == config->pretrain.steps;
        mbl_status_t asked = mbl_comm_agree(p->engine.comm, *stop ? MBL_ERR_STOPPED : MBL_OK);
        bool stopped = asked == MBL_ERR_STOPPED;
        if (!stopped)
            MBL_TRY(asked);
        if (stopped || last ||
            (config->pretrain.checkpoint_every && done % config->pretrain.checkpoint_every == 0))
            MBL_TRY(mbl_pretrain_state_save(&p->state, config, p->out_dir));
        if (stopped && !last) {
            char yaml[600], quoted[1200];
            MBL_TRY(mbl_rundir_join(p->out_dir, "run.yaml", yaml, sizeof yaml));
            MBL_RECORD("stopped at step %zu with a checkpoint; go on with: marble pretrain %s --resume auto",
                       done, mbl_quote(yaml, quoted, sizeof quoted));
            return mbl_comm_agree(p->engine.comm, MBL_ERR_STOPPED); /* saving agreed that all went well */
        }
        if (last || (config->pretrain.eval_every && done % config->pretrain.eval_every == 0))
            asked = evaluate(p, done);
        if (asked != MBL_ERR_STOPPED) /* while scores were waited for: the next step sees to it */
            MBL_TRY(asked);
    }
    return mbl_pretrain_state_export(&p->state, p->out_dir);
}

/* The configuration with the checkpoint's schedule, where its own does not set one. */
static mbl_status_t keep_schedule(pretrain_t *p) {
    if (!p->rundir.checkpoint[0] || !mbl_resume_keeps_schedule(p->engine.config, p->state.made_schedule))
        return MBL_OK;
    p->kept = *p->engine.config;
    p->kept.rollout.schedule = p->state.made_schedule;
    p->engine.config = &p->kept;
    return make_plan(p, &p->kept);
}

mbl_status_t mbl_pretrain(const mbl_config_t *config, mbl_comm_t *comm, const mbl_rundir_options_t *folder) {
    mbl_status_t status;
    pretrain_t p;
    memset(&p, 0, sizeof p);
    p.out_dir = folder->path;
    MBL_TRY_GOTO(mbl_rundir_look(comm, folder), done);
    MBL_TRY_GOTO(mbl_rundir_enter(comm, folder, &p.rundir), done);
    MBL_TRY_GOTO(mbl_comm_agree(comm, open_all(&p, config, comm)), done);
    p.state.run = p.rundir.run;
    MBL_TRY_GOTO(mbl_comm_agree(comm, mbl_pretrain_state_load(&p.state, p.rundir.checkpoint)), done);
    MBL_TRY_GOTO(keep_schedule(&p), done);
    config = p.engine.config;
    MBL_TRY_GOTO(mbl_rundir_begin(comm, &p.rundir, config, p.state.optimizer.steps), done);
    p.state.branch = p.rundir.branch;
    if (mbl_rundir_forks(&p.rundir))
        MBL_TRY_GOTO(mbl_pretrain_state_save(&p.state, config, p.out_dir), done);
    mbl_rundir_space(&p.rundir, config, mbl_pretrain_state_bytes(&p.state), p.state.optimizer.steps,
                     config->pretrain.steps, config->pretrain.checkpoint_every);
    status = run(&p, mbl_stop_catch(mbl_stop_seconds(config->limits.seconds, config->limits.margin)));
    mbl_stop_release();
done:
    status = mbl_comm_settle(comm, status);
    close_all(&p);
    return status;
}
