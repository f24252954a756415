/* marble sample: images for prompts, one file each and a captioned sheet. */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "model/lora_file.h"
#include "run/engine.h"
#include "run/prompt_report.h"
#include "run/resume.h"
#include "run/state.h"

#include <math.h>
#include <string.h>

static const char about[] =
    "Generates images with a diffusers model folder, or with a checkpoint's adapter on its base model:\n"
    "    marble sample --model deploy/examples/signs-base --prompt 'three blue circles' --out images\n"
    "    marble sample --checkpoint runs/quickstart/checkpoints/latest.h5 --prompts prompts.txt --out "
    "images\n"
    "    marble sample --model deploy/examples/signs-base --lora adapter.safetensors --prompt TEXT --out "
    "images\n"
    "OUT gets 000.png, 001.png, ..., in whose text chunks stands how they were made (prompt, seed, steps, "
    "solver,\n"
    "schedule, shift, model, LoRA), and sheet.png, all of them with captions, which says it too.";

typedef struct {
    const char *model, *prompts_file, *out, *checkpoint, *config, *lora, *solver, *schedule, *precision;
    mbl_arg_texts_t prompts, sets;
    size_t steps, seed, per_prompt, threads, batch;
    double shift;
} options_t;

typedef struct {
    mbl_engine_t engine;  /* ops, pipeline; with a checkpoint also config and comm */
    mbl_config_t *config; /* of the checkpoint */
    mbl_state_t state;
    mbl_lora_t *lora; /* of --lora, with its values */
    mbl_adapter_t adapter;
    mbl_prompts_t from_file;
    const char **prompt;
    size_t n_prompts, n; /* n = prompts x per_prompt */
    mbl_conditions_t conditions;
    mbl_sampler_t *sampler;
    mbl_tensor_t x0;
    uint8_t *rgb;
    mbl_image_t *images;
    const char **captions;
    uint32_t *index;
    int64_t *sample;
    mbl_schedule_t schedule; /* that they are drawn by */
} sample_t;

static mbl_status_t gather_prompts(const options_t *o, sample_t *s) {
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

/* The adapter of a file for diffusers or of a folder for PEFT. */
static mbl_status_t open_lora(const options_t *o, sample_t *s) {
    mbl_lora_config_t config;
    mbl_tensor_t values;
    float *host;
    const mbl_dit_t *model = mbl_pipeline_model(s->engine.pipeline);
    MBL_TRY(mbl_lora_read_config(model, o->lora, &config));
    MBL_TRY(mbl_lora_new(model, &config, &s->lora));
    MBL_TRY(mbl_adapter_new(model, s->lora, &s->adapter));
    MBL_ALLOC(host, mbl_lora_size(s->lora));
    mbl_status_t status = mbl_lora_read(s->lora, o->lora, host);
    if (status == MBL_OK)
        status = mbl_tensor_new(s->engine.ops, MBL_F32, &values, 1, mbl_lora_size(s->lora));
    if (status == MBL_OK) {
        status = mbl_tensor_upload(s->engine.ops, &values, host);
        if (status == MBL_OK)
            status = mbl_adapter_set(model, &s->adapter, &values);
        mbl_tensor_free(s->engine.ops, &values);
    }
    mbl_free(host);
    return status;
}

/* The checkpoint's own configuration says what its adapter is and which model it belongs to. One that is
 * given besides has to agree, and may accept another base model. */
static mbl_status_t read_config(const options_t *o, sample_t *s) {
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

static mbl_status_t check_options(const options_t *o) {
    if (o->lora && o->checkpoint)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --lora and --checkpoint; expected one adapter");
    if (!o->model && !o->checkpoint)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "sample: no model; expected --model DIR, or --checkpoint FILE, which knows its own");
    if (o->config && !o->checkpoint)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --config goes with --checkpoint; expected both or neither");
    if (o->sets.count > 0 && !o->config)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --set overrides a key of --config; expected that too");
    return MBL_OK;
}

static mbl_status_t open_model(const options_t *o, sample_t *s, mbl_comm_t *comm) {
    mbl_dtype_t dtype = strcmp(o->precision, "bf16") == 0 ? MBL_BF16 : MBL_F32;
    s->engine.comm = comm;
    if (o->checkpoint)
        MBL_TRY(read_config(o, s));
    MBL_TRY(mbl_ops_open("auto", (int)o->threads, &s->engine.ops));
    const mbl_text_options_t text = o->checkpoint ? mbl_engine_text(s->config) : (mbl_text_options_t){0};
    MBL_TRY(mbl_pipeline_open(s->engine.ops, dtype, o->checkpoint ? s->config->model.path : o->model, &text,
                              &s->engine.pipeline));
    if (o->lora)
        return open_lora(o, s);
    if (!o->checkpoint)
        return MBL_OK;
    MBL_TRY(mbl_state_new(&s->engine, &s->state));
    return mbl_state_load_adapters(&s->state, o->checkpoint);
}

static mbl_status_t make_buffers(const options_t *o, sample_t *s) {
    size_t c, height, width, high, wide;
    mbl_pipeline_latent(s->engine.pipeline, &c, &height, &width);
    mbl_pipeline_image_size(s->engine.pipeline, &high, &wide);
    MBL_TRY(mbl_prompt_report_cuts(s->engine.pipeline, s->prompt, s->n_prompts, "prompts"));
    MBL_TRY(mbl_pipeline_encode(s->engine.pipeline, s->prompt, s->n_prompts, &s->conditions));
    mbl_pipeline_release_text(s->engine.pipeline);
    MBL_TRY(mbl_sampler_new(s->engine.pipeline, s->lora ? s->lora : s->state.lora, o->batch, &s->sampler));
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

/* The shift that is asked for, that of the checkpoint's run, or the model's own; *of: whose it is. */
static double shift_of(const options_t *o, const sample_t *s, const char **of) {
    *of = o->shift > 0 ? "--shift" : s->config ? "rollout.shift of the checkpoint's run" : "the model's own";
    return o->shift > 0 ? o->shift
           : s->config  ? s->config->rollout.shift
                        : mbl_pipeline_shift(s->engine.pipeline);
}

/* The same of the spacing of its sigmas. */
static mbl_schedule_kind_t schedule_of(const options_t *o, const sample_t *s, const char **of) {
    mbl_schedule_kind_t kind = MBL_SCHEDULE_DIFFUSERS;
    *of = o->schedule ? "--schedule"
          : s->config ? "rollout.schedule of the checkpoint's run"
                      : "the model's own";
    if (o->schedule)
        (void)mbl_schedule_find(o->schedule, &kind); /* one of the words the option takes */
    return o->schedule || !s->config ? kind : s->config->rollout.schedule;
}

/* What is no number would be drawn as black. x0: the latents of the images from `first` on. */
static mbl_status_t check_finite(const options_t *o, const sample_t *s, const mbl_tensor_t *x0,
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

static mbl_status_t generate(const options_t *o, sample_t *s) {
    mbl_sampler_plan_t plan;
    mbl_solver_t solver = MBL_SOLVER_EULER;
    const char *of, *kind_of;
    (void)mbl_solver_find(o->solver, &solver); /* one of the words the option takes */
    s->schedule = (mbl_schedule_t){.kind = schedule_of(o, s, &kind_of), .shift = shift_of(o, s, &of)};
    MBL_INFO("%s, %zu steps, schedule %s (%s), shift %g (%s)", o->solver, o->steps,
             mbl_config_word("rollout.schedule", (int)s->schedule.kind), kind_of, s->schedule.shift, of);
    MBL_TRY(mbl_sampler_plan(solver, o->steps, &s->schedule, &plan));
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
                                        .purpose = MBL_RNG_NOISE};
        MBL_TRY(mbl_sampler_run(s->sampler, &plan, &request, &x0));
        MBL_TRY(check_finite(o, s, &x0, first));
        MBL_TRY(mbl_pipeline_decode(s->engine.pipeline, &x0, s->images[first].rgb, NULL));
        MBL_INFO("%zu of %zu images", first + n, s->n);
    }
    return MBL_OK;
}

/* An image with all that it takes to draw it again, by diffusers too, up to the noise: of this prompt and
 * sample. */
static mbl_status_t write_one(const options_t *o, const sample_t *s, const char *prompt, const char *sample,
                              const mbl_image_t *image, const char *path) {
    char seed[64], steps[64], shift[64];
    const char *folder = o->checkpoint ? s->config->model.path : o->model;
    snprintf(seed, sizeof seed, "%zu", o->seed);
    snprintf(steps, sizeof steps, "%zu", o->steps);
    snprintf(shift, sizeof shift, "%g", s->schedule.shift);
    const mbl_image_text_t texts[] = {{"prompt", prompt},
                                      {"seed", seed},
                                      {"sample", sample},
                                      {"steps", steps},
                                      {"solver", o->solver},
                                      {"schedule", mbl_schedule_text(s->schedule.kind)},
                                      {"shift", shift},
                                      {"model", folder},
                                      {"model_digest", mbl_pipeline_digest(s->engine.pipeline)},
                                      {"lora", o->lora         ? o->lora
                                               : o->checkpoint ? o->checkpoint
                                                               : "none"},
                                      {"precision", o->precision},
                                      {"software", "marble " MBL_VERSION}};
    return mbl_image_write_png_text(path, image, texts, sizeof texts / sizeof *texts);
}

/* All of them with captions; its prompts are a line each. */
static mbl_status_t write_sheet(const options_t *o, const sample_t *s, const char *path) {
    mbl_image_t sheet;
    char samples[64], *prompts;
    size_t scale = s->images[0].width < 128 ? 4 : 1, size = 1;
    snprintf(samples, sizeof samples, s->n > 1 ? "0 to %zu" : "%zu", s->n - 1);
    for (size_t i = 0; i < s->n_prompts; i++)
        size += strlen(s->prompt[i]) + 1;
    MBL_ALLOC(prompts, size);
    for (size_t i = 0; i < s->n_prompts; i++)
        snprintf(prompts + strlen(prompts), size - strlen(prompts), "%s%s", i ? "\n" : "", s->prompt[i]);
    mbl_status_t status =
        mbl_image_sheet(s->images, s->captions, NULL, s->n, s->n < 8 ? s->n : 8, scale, &sheet);
    if (status == MBL_OK) {
        status = write_one(o, s, prompts, samples, &sheet, path);
        mbl_image_free(&sheet);
    }
    mbl_free(prompts);
    return status;
}

static mbl_status_t write_files(const options_t *o, const sample_t *s) {
    char path[1024], sample[64];
    MBL_TRY(mbl_folder_make(o->out));
    for (size_t i = 0; i < s->n; i++) {
        snprintf(path, sizeof path, "%s/%03zu.png", o->out, i);
        snprintf(sample, sizeof sample, "%lld", (long long)s->sample[i]);
        MBL_TRY(write_one(o, s, s->captions[i], sample, &s->images[i], path));
    }
    snprintf(path, sizeof path, "%s/sheet.png", o->out);
    mbl_status_t status = write_sheet(o, s, path);
    if (status == MBL_OK)
        MBL_INFO("%zu images and sheet.png are in %s", s->n, o->out);
    return status;
}

static mbl_status_t run_sample(const options_t *o, sample_t *s, mbl_comm_t *comm) {
    MBL_TRY(check_options(o));
    MBL_TRY(gather_prompts(o, s));
    MBL_TRY(open_model(o, s, comm));
    MBL_TRY(make_buffers(o, s));
    MBL_TRY(generate(o, s));
    return write_files(o, s);
}

static mbl_status_t sample(const options_t *o) {
    sample_t s;
    mbl_comm_t *comm;
    memset(&s, 0, sizeof s);
    MBL_TRY(mbl_comm_open("self", 0, &comm));
    mbl_status_t status = run_sample(o, &s, comm);
    mbl_sampler_free(s.sampler);
    if (s.engine.ops)
        mbl_tensor_free(s.engine.ops, &s.x0);
    if (s.conditions.n)
        mbl_conditions_free(s.engine.ops, &s.conditions);
    if (s.adapter.lora)
        mbl_adapter_free(mbl_pipeline_model(s.engine.pipeline), &s.adapter);
    mbl_lora_free(s.lora);
    mbl_state_free(&s.state);
    mbl_engine_close(&s.engine);
    mbl_prompts_free(&s.from_file);
    mbl_config_free(s.config);
    mbl_free(s.prompt);
    mbl_free(s.rgb);
    mbl_free(s.images);
    mbl_free(s.captions);
    mbl_free(s.index);
    mbl_free(s.sample);
    mbl_comm_close(comm);
    return status;
}

int mbl_cmd_sample(int argc, char **argv) {
    static const char *const solvers[] = {"euler", "dpm1", "dpm2", NULL},
                             *const schedules[] = {"diffusers", "linear", NULL},
                             *const precisions[] = {"f32", "bf16", NULL};
    options_t o = {
        .solver = "dpm2", .precision = "f32", .steps = 16, .per_prompt = 1, .batch = 32, .seed = 42};
    bool helped = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_arg_t args[] = {
        {"model", MBL_ARG_TEXT, &o.model, "DIR",
         "the model, a folder in the diffusers layout; for a checkpoint: its base model, where that has "
         "moved",
         0, 0, 0, NULL},
        {"prompt", MBL_ARG_PHRASES, &o.prompts, "TEXT", "what to show; may be given again and again", 0, 0, 0,
         NULL},
        {"prompts", MBL_ARG_TEXT, &o.prompts_file, "FILE",
         "one prompt a line (.txt), or objects with \"prompt\" (.jsonl)", 0, 0, 0, NULL},
        {"out", MBL_ARG_TEXT, &o.out, "DIR", "where the images go", true, 0, 0, NULL},
        {"per-prompt", MBL_ARG_COUNT, &o.per_prompt, "N", "images of each prompt", 0, 1, 10000, NULL},
        {"steps", MBL_ARG_COUNT, &o.steps, "N", "sampling steps; 16 unless given", 0, 1,
         MBL_SAMPLER_MAX_STEPS, NULL},
        {"sampler", MBL_ARG_CHOICE, &o.solver, "NAME", "solver of the flow ODE; dpm2 unless given", 0, 0, 0,
         solvers},
        {"shift", MBL_ARG_NUMBER, &o.shift, "X",
         "of the sigma schedule; unless given, that of the run with --checkpoint (rollout.shift), else the "
         "model's own "
         "(scheduler/scheduler_config.json)",
         0, 0.01, 100, NULL},
        {"schedule", MBL_ARG_CHOICE, &o.schedule, "NAME",
         "of sigmas; diffusers: as its pipeline spaces them, linear: as earlier versions of marble did; "
         "unless given, that of the run with --checkpoint (rollout.schedule), else diffusers",
         0, 0, 0, schedules},
        {"seed", MBL_ARG_COUNT, &o.seed, "N", "of the starting noise", 0, 0, 0, NULL},
        {"checkpoint", MBL_ARG_TEXT, &o.checkpoint, "FILE",
         "use this checkpoint's adapter (its EMA) on its base model", 0, 0, 0, NULL},
        {"lora", MBL_ARG_TEXT, &o.lora, "FILE|DIR",
         "use this adapter: a .safetensors file for diffusers, or a folder of PEFT", 0, 0, 0, NULL},
        {"config", MBL_ARG_TEXT, &o.config, "RUN.yaml",
         "not needed: the checkpoint has its run's; one that is given has to have the same adapter", 0, 0, 0,
         NULL},
        {"set", MBL_ARG_TEXTS, &o.sets, "KEY=VALUE", "overrides a key of RUN.yaml", 0, 0, 0, NULL},
        {"precision", MBL_ARG_CHOICE, &o.precision, "NAME", "compute type", 0, 0, 0, precisions},
        {"batch", MBL_ARG_COUNT, &o.batch, "N", "images sampled at once", 0, 1, 4096, NULL},
        {"threads", MBL_ARG_COUNT, &o.threads, "N", "0: OMP_NUM_THREADS, or the CPUs it may use", 0, 0, 4096,
         NULL}};
    const mbl_args_t spec = {"sample", "", about, args, sizeof args / sizeof *args, 0, 0};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = sample(&o);
    mbl_free(rest.items);
    mbl_free(o.prompts.items);
    mbl_free(o.sets.items);
    return mbl_status_exit_code(status);
}
