/* marble sample: the model with its adapter, and the images. */
#include "cli/sample.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/sample_files.h"
#include "model/lora_file.h"
#include "run/prompt_report.h"
#include "run/resume.h"

#include <math.h>
#include <string.h>

static mbl_status_t gather_prompts(const mbl_sample_options_t *o, mbl_sample_t *s) {
    if (o->prompts_file)
        MBL_TRY(mbl_prompts_load("file", o->prompts_file, 0, 0, 0, &s->from_file));
    s->n_prompts = o->prompts.count + s->from_file.count;
    if (s->n_prompts == 0)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: no prompt; give --prompt TEXT or --prompts FILE");
    MBL_ALLOC(s->prompt, s->n_prompts);
    for (size_t i = 0; i < s->n_prompts; i++)
        s->prompt[i] =
            i < o->prompts.count ? o->prompts.items[i] : s->from_file.items[i - o->prompts.count].text;
    s->n = s->n_prompts * o->per_prompt;
    return MBL_OK;
}

/* The checkpoint's own configuration says what its adapter is and which model it belongs to. One that is
 * given besides has to agree, and may accept another base model. */
static mbl_status_t read_config(const mbl_sample_options_t *o, mbl_sample_t *s) {
    mbl_config_t *given;
    size_t step;
    MBL_TRY(mbl_resume_config(o->checkpoint, o->model, &s->config, &step));
    s->engine.config = s->config;
    s->engine.k = s->config->rewards.count;
    if (!o->config)
        return MBL_OK;
    MBL_TRY(mbl_config_load(o->config, o->sets.items, o->sets.count, &given));
    mbl_status_t status = mbl_resume_same_adapter(given, o->config, s->config, o->checkpoint);
    s->config->checkpoint.other_base = given->checkpoint.other_base;
    mbl_config_free(given);
    return status;
}

static mbl_status_t open_model(const mbl_sample_options_t *o, mbl_sample_t *s, mbl_comm_t *comm) {
    mbl_dtype_t dtype = strcmp(o->precision, "bf16") == 0 ? MBL_BF16 : MBL_F32;
    s->engine.comm = comm;
    if (o->checkpoint)
        MBL_TRY(read_config(o, s));
    MBL_TRY(mbl_ops_open("auto", (int)o->threads, &s->engine.ops));
    mbl_text_options_t text = o->checkpoint ? mbl_engine_text(s->config) : (mbl_text_options_t){0};
    text.low_memory |= o->low_memory;
    MBL_TRY(mbl_pipeline_open(s->engine.ops, dtype, o->checkpoint ? s->config->model.path : o->model, &text,
                              &s->engine.pipeline));
    if (o->height || !o->checkpoint)
        MBL_TRY(mbl_pipeline_resize(s->engine.pipeline, o->height, o->width));
    else
        MBL_TRY(mbl_engine_resize(s->config, s->engine.pipeline));
    if (o->lora)
        return mbl_lora_open(mbl_pipeline_model(s->engine.pipeline), o->lora, &s->lora, &s->adapter);
    if (!o->checkpoint)
        return MBL_OK;
    MBL_TRY(mbl_state_new(&s->engine, &s->state));
    return mbl_state_load_adapters(&s->state, o->checkpoint);
}

static mbl_status_t make_buffers(const mbl_sample_options_t *o, mbl_sample_t *s) {
    size_t c, height, width, high, wide;
    mbl_pipeline_latent(s->engine.pipeline, &c, &height, &width);
    mbl_pipeline_image_size(s->engine.pipeline, &high, &wide);
    MBL_TRY(
        mbl_prompt_report_cuts(mbl_pipeline_text(s->engine.pipeline), s->prompt, s->n_prompts, "prompts"));
    MBL_TRY(mbl_pipeline_encode(s->engine.pipeline, s->prompt, s->n_prompts, &s->conditions));
    if (o->guidance > 1)
        MBL_TRY(mbl_pipeline_encode(s->engine.pipeline, &o->negative, 1, &s->negative));
    mbl_pipeline_release_text(s->engine.pipeline);
    const size_t at_once = o->batch < s->n ? o->batch : s->n; /* no room for images that are not asked for */
    MBL_TRY(mbl_sampler_new(s->engine.pipeline, s->lora ? s->lora : s->state.lora, at_once, &s->sampler));
    const mbl_guidance_t guidance = {o->guidance,   &s->negative,  o->skip,
                                     o->skip_scale, o->skip_start, o->skip_stop};
    MBL_TRY(mbl_sampler_guide(s->sampler, &guidance));
    MBL_TRY(mbl_tensor_new(s->engine.ops, MBL_F32, &s->x0, 4, s->n, c, height, width));
    MBL_ALLOC(s->rgb, s->n * high * wide * 3);
    MBL_ALLOC(s->images, s->n);
    MBL_ALLOC(s->captions, s->n);
    MBL_ALLOC(s->index, s->n);
    MBL_ALLOC(s->sample, s->n);
    for (size_t i = 0; i < s->n; i++) {
        s->index[i] = (uint32_t)(i / o->per_prompt);
        s->sample[i] = (int64_t)i;
        s->captions[i] = s->prompt[s->index[i]];
        s->images[i] = (mbl_image_t){wide, high, s->rgb + i * high * wide * 3};
    }
    return MBL_OK;
}

mbl_status_t mbl_sample_open(const mbl_sample_options_t *o, mbl_comm_t *comm, mbl_sample_t *s) {
    MBL_TRY(gather_prompts(o, s));
    MBL_TRY(open_model(o, s, comm));
    return make_buffers(o, s);
}

void mbl_sample_close(mbl_sample_t *s) {
    mbl_sampler_free(s->sampler);
    if (s->engine.ops)
        mbl_tensor_free(s->engine.ops, &s->x0);
    if (s->conditions.n)
        mbl_conditions_free(s->engine.ops, &s->conditions);
    if (s->negative.n)
        mbl_conditions_free(s->engine.ops, &s->negative);
    if (s->adapter.lora)
        mbl_adapter_free(mbl_pipeline_model(s->engine.pipeline), &s->adapter);
    mbl_lora_free(s->lora);
    mbl_state_free(&s->state);
    mbl_engine_close(&s->engine);
    mbl_prompts_free(&s->from_file);
    mbl_config_free(s->config);
    mbl_free(s->prompt);
    mbl_free(s->rgb);
    mbl_free(s->noise);
    mbl_free(s->images);
    mbl_free(s->captions);
    mbl_free(s->index);
    mbl_free(s->sample);
}

/* ---- drawing ---- */

/* The shift that is asked for, that of the checkpoint's run, or the model's own; *of: whose it is. */
static double shift_of(const mbl_sample_options_t *o, const mbl_sample_t *s, const char **of) {
    *of = o->shift > 0 ? "--shift" : s->config ? "rollout.shift of the checkpoint's run" : "the model's own";
    return o->shift > 0 ? o->shift
           : s->config  ? s->config->rollout.shift
                        : mbl_pipeline_shift(s->engine.pipeline);
}

/* The same of the spacing of its sigmas. */
static mbl_sigma_schedule_kind_t schedule_of(const mbl_sample_options_t *o, const mbl_sample_t *s,
                                             const char **of) {
    mbl_sigma_schedule_kind_t kind = MBL_SCHEDULE_DIFFUSERS;
    *of = o->schedule ? "--schedule"
          : s->config ? "rollout.schedule of the checkpoint's run"
                      : "the model's own";
    if (o->schedule)
        (void)mbl_sigma_schedule_find(o->schedule, &kind); /* one of the words the option takes */
    return o->schedule || !s->config ? kind : s->config->rollout.schedule;
}

/* What is no number would be drawn as black. x0: the latents of the images from `first` on. */
static mbl_status_t check_finite(const mbl_sample_options_t *o, const mbl_sample_t *s, const mbl_tensor_t *x0,
                                 size_t first) {
    size_t each = x0->dim[1] * x0->dim[2] * x0->dim[3], n = x0->dim[0] * each, i = 0;
    const char *adapter = o->lora ? o->lora : o->checkpoint;
    float *values;
    MBL_ALLOC(values, n);
    mbl_status_t status = mbl_tensor_download(s->engine.ops, x0, values);
    while (status == MBL_OK && i < n && isfinite(values[i]))
        i++;
    if (status == MBL_OK && i < n)
        status =
            MBL_FAIL(MBL_ERR_NUMERIC,
                     "sample: the latent of image %zu (%s) has %g in it; expected finite numbers from %s%s%s",
                     first + i / each, s->captions[first + i / each], (double)values[i],
                     o->checkpoint ? s->config->model.path : o->model, adapter ? " with " : "",
                     adapter ? adapter : "");
    mbl_free(values);
    return status;
}

/* Noise that is kept, in x0 and on the host: of a file, or of the seed. */
static mbl_status_t make_noise(const mbl_sample_options_t *o, mbl_sample_t *s) {
    const mbl_tensor_t *x = &s->x0;
    size_t each = x->dim[1] * x->dim[2] * x->dim[3];
    MBL_ALLOC(s->noise, s->n * each);
    if (o->noise) {
        MBL_TRY(mbl_noise_read(o->noise, x->dim, s->noise));
        return mbl_tensor_upload(s->engine.ops, x, s->noise);
    }
    mbl_tensor_t rows = mbl_tensor_reshape(x, 2, s->n, each), sample;
    MBL_TRY(mbl_tensor_new(s->engine.ops, MBL_I64, &sample, 1, s->n));
    mbl_status_t status = mbl_tensor_upload(s->engine.ops, &sample, s->sample);
    if (status == MBL_OK)
        status = MBL_OP(s->engine.ops, normal, .y = &rows, .sample = &sample, .seed = o->seed,
                        .purpose = MBL_RNG_NOISE);
    if (status == MBL_OK)
        status = mbl_tensor_download(s->engine.ops, x, s->noise);
    mbl_tensor_free(s->engine.ops, &sample);
    return status;
}

mbl_status_t mbl_sample_draw(const mbl_sample_options_t *o, mbl_sample_t *s) {
    mbl_sampler_plan_t plan;
    mbl_solver_t solver = MBL_SOLVER_EULER;
    const char *of, *kind_of;
    (void)mbl_solver_find(o->solver, &solver); /* one of the words the option takes */
    s->schedule = (mbl_sigma_schedule_t){.kind = schedule_of(o, s, &kind_of), .shift = shift_of(o, s, &of)};
    MBL_INFO("%s, %zu steps, schedule %s (%s), shift %g (%s)", o->solver, o->steps,
             mbl_config_word("rollout.schedule", (int)s->schedule.kind), kind_of, s->schedule.shift, of);
    MBL_TRY(mbl_sampler_plan(solver, o->steps, &s->schedule, &plan));
    if (o->noise || o->latents)
        MBL_TRY(make_noise(o, s));
    for (size_t first = 0; first < s->n; first += o->batch) {
        size_t n = s->n - first < o->batch ? s->n - first : o->batch;
        mbl_tensor_t x0 = mbl_tensor_rows(&s->x0, first, n);
        mbl_sample_request_t request = {.adapter = s->lora         ? &s->adapter
                                                   : o->checkpoint ? &s->state.update.policy.in_ema
                                                                   : NULL,
                                        .conditions = &s->conditions,
                                        .index = s->index + first,
                                        .sample = s->sample + first,
                                        .n = n,
                                        .seed = o->seed,
                                        .purpose = MBL_RNG_NOISE,
                                        .noise = s->noise != NULL};
        mbl_log_progress("images", first, s->n);
        MBL_TRY(mbl_sampler_run(s->sampler, &plan, &request, &x0));
        MBL_TRY(check_finite(o, s, &x0, first));
        MBL_TRY(mbl_pipeline_decode(s->engine.pipeline, &x0, s->images[first].rgb, NULL));
        mbl_log_shown("%zu of %zu images", first + n, s->n);
    }
    mbl_log_progress(NULL, 0, 0);
    return MBL_OK;
}
