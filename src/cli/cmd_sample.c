/* marble sample: images for prompts, one file each and a captioned sheet. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/sample.h"
#include "cli/sample_files.h"

#include <stdio.h>
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

/* "7,8,9" into a bit for each. */
static mbl_status_t read_layers(mbl_sample_options_t *o) {
    for (const char *at = o->layers; at;) {
        size_t digits = strspn(at, "0123456789"), layer = 0;
        for (size_t i = 0; i < digits && i < 3; i++)
            layer = 10 * layer + (size_t)(at[i] - '0');
        if (digits == 0 || digits > 2 || layer >= MBL_DIT_MAX_BLOCKS || (at[digits] && at[digits] != ','))
            return MBL_FAIL(
                MBL_ERR_USAGE,
                "sample: --skip-layers: \"%.60s\"; expected numbers of blocks such as 7,8,9, each "
                "below %d",
                o->layers, MBL_DIT_MAX_BLOCKS);
        o->skip |= (uint64_t)1 << layer;
        at = at[digits] ? at + digits + 1 : NULL;
    }
    return MBL_OK;
}

static mbl_status_t check_guidance(mbl_sample_options_t *o) {
    if (o->guidance <= 1 && (o->negative || o->layers))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "sample: --%s is a part of guidance; expected --guidance G above 1 with it",
                        o->negative ? "negative" : "skip-layers");
    if (!o->negative)
        o->negative = "";
    return read_layers(o);
}

static mbl_status_t check_options(const mbl_sample_options_t *o) {
    if (o->lora && o->checkpoint)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --lora and --checkpoint; expected one adapter");
    if (!o->model && !o->checkpoint)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "sample: no model; expected --model DIR, or --checkpoint FILE, which knows its own");
    if (!o->height != !o->width)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --%s alone; expected --height and --width, or neither",
                        o->height ? "height" : "width");
    if (o->config && !o->checkpoint)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --config goes with --checkpoint; expected both or neither");
    if (o->sets.count > 0 && !o->config)
        return MBL_FAIL(MBL_ERR_USAGE, "sample: --set overrides a key of --config; expected that too");
    return MBL_OK;
}

/* The text chunks of all images, behind those that differ. */
enum { CHUNKS = 24 };
typedef struct {
    mbl_image_text_t text[CHUNKS];
    size_t n;
    char number[CHUNKS][32];
} chunks_t;

static void add_text(chunks_t *c, const char *key, const char *text) {
    if (c->n < CHUNKS)
        c->text[c->n++] = (mbl_image_text_t){key, text};
}

static void add_number(chunks_t *c, const char *key, double value) {
    if (c->n == CHUNKS)
        return;
    snprintf(c->number[c->n], sizeof c->number[0], "%g", value);
    add_text(c, key, c->number[c->n]);
}

static void add_count(chunks_t *c, const char *key, size_t value) {
    if (c->n == CHUNKS)
        return;
    snprintf(c->number[c->n], sizeof c->number[0], "%zu", value);
    add_text(c, key, c->number[c->n]);
}

/* With all that it takes to draw the images again, by diffusers too, up to the noise. */
static void describe(const mbl_sample_options_t *o, const mbl_sample_t *s, chunks_t *c) {
    c->n = 0;
    if (o->noise)
        add_text(c, "noise", o->noise);
    else
        add_count(c, "seed", o->seed);
    add_count(c, "steps", o->steps);
    add_text(c, "solver", o->solver);
    add_text(c, "schedule", mbl_sigma_schedule_text(s->schedule.kind));
    add_number(c, "shift", s->schedule.shift);
    add_count(c, "height", s->images[0].height);
    add_count(c, "width", s->images[0].width);
    add_number(c, "guidance", o->guidance);
    if (o->guidance > 1)
        add_text(c, "negative", o->negative);
    if (o->layers) {
        add_text(c, "skip_layers", o->layers);
        add_number(c, "skip_scale", o->skip_scale);
        add_number(c, "skip_start", o->skip_start);
        add_number(c, "skip_stop", o->skip_stop);
    }
    add_text(c, "model", o->checkpoint ? s->config->model.path : o->model);
    add_text(c, "model_digest", mbl_pipeline_digest(s->engine.pipeline));
    add_text(c, "lora", o->lora ? o->lora : o->checkpoint ? o->checkpoint : "none");
    add_text(c, "precision", o->precision);
    add_text(c, "software", "marble " MBL_VERSION);
}

static mbl_status_t write_files(const mbl_sample_options_t *o, const mbl_sample_t *s) {
    chunks_t chunks;
    describe(o, s, &chunks);
    const mbl_sample_files_t files = {.images = s->images,
                                      .captions = s->captions,
                                      .sample = s->sample,
                                      .n = s->n,
                                      .prompts = s->prompt,
                                      .n_prompts = s->n_prompts,
                                      .how = chunks.text,
                                      .n_how = chunks.n};
    MBL_TRY(mbl_sample_files_write(&files, o->out));
    MBL_INFO("%zu images and sheet.png are in %s", s->n, o->out);
    return o->latents ? mbl_latents_write(o->latents, &s->x0, s->noise, s->engine.ops) : MBL_OK;
}

static mbl_status_t run_sample(const mbl_sample_options_t *o, mbl_sample_t *s, mbl_comm_t *comm) {
    MBL_TRY(check_options(o));
    MBL_TRY(mbl_sample_open(o, comm, s));
    MBL_TRY(mbl_sample_draw(o, s));
    return write_files(o, s);
}

static mbl_status_t sample(mbl_sample_options_t *o) {
    mbl_sample_t s;
    mbl_comm_t *comm;
    memset(&s, 0, sizeof s);
    MBL_TRY(check_guidance(o));
    MBL_TRY(mbl_comm_open("self", 0, &comm));
    mbl_status_t status = run_sample(o, &s, comm);
    mbl_sample_close(&s);
    mbl_comm_close(comm);
    return status;
}

int mbl_cmd_sample(int argc, char **argv) {
    static const char *const solvers[] = {"euler", "dpm1", "dpm2", NULL},
                             *const schedules[] = {"diffusers", "linear", NULL},
                             *const precisions[] = {"f32", "bf16", NULL};
    mbl_sample_options_t o = {.solver = "dpm2",
                              .precision = "f32",
                              .steps = 16,
                              .per_prompt = 1,
                              .batch = 32,
                              .seed = 42,
                              .guidance = 1,
                              .skip_scale = 2.8,
                              .skip_start = 0.01,
                              .skip_stop = 0.2};
    bool helped = false, quiet = false;
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
        {"height", MBL_ARG_COUNT, &o.height, "N",
         "of the images in pixels, a multiple of 16 for Stable Diffusion; unless given, that of the run with "
         "--checkpoint (rollout.height), else the model's own",
         0, 1, 16384, NULL},
        {"width", MBL_ARG_COUNT, &o.width, "N", "and their width, given together", 0, 1, 16384, NULL},
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
        {"guidance", MBL_ARG_NUMBER, &o.guidance, "G",
         "scale of classifier-free guidance, u + G (c - u) with u for --negative; unless given 1, none", 0, 1,
         100, NULL},
        {"negative", MBL_ARG_TEXT, &o.negative, "TEXT", "what not to show; unless given the empty prompt", 0,
         0, 0, NULL},
        {"skip-layers", MBL_ARG_TEXT, &o.layers, "I,J,...",
         "skip-layer guidance without these blocks, as diffusers has it: 7,8,9 for Stable Diffusion 3.5 "
         "Medium",
         0, 0, 0, NULL},
        {"skip-scale", MBL_ARG_NUMBER, &o.skip_scale, "X", "its scale; 2.8 unless given", 0, 0, 100, NULL},
        {"skip-start", MBL_ARG_NUMBER, &o.skip_start, "X",
         "the share of the steps after which it begins; 0.01 unless given", 0, 0, 1, NULL},
        {"skip-stop", MBL_ARG_NUMBER, &o.skip_stop, "X", "and before which it ends; 0.2 unless given", 0, 0,
         1, NULL},
        {"noise", MBL_ARG_TEXT, &o.noise, "FILE",
         "start from this noise: a safetensors file with the tensor \"noise\" [images, channels, height, "
         "width] of "
         "latents, those of the first prompt first, as diffusers takes it for `latents`",
         0, 0, 0, NULL},
        {"latents", MBL_ARG_TEXT, &o.latents, "FILE",
         "write a safetensors file with \"noise\" and, of the same shape, \"latents\", the samples before "
         "they are "
         "decoded; both f32",
         0, 0, 0, NULL},
        {"checkpoint", MBL_ARG_TEXT, &o.checkpoint, "FILE",
         "use this checkpoint's adapter (its EMA) on its base model", 0, 0, 0, NULL},
        {"lora", MBL_ARG_TEXT, &o.lora, "FILE|DIR",
         "use this adapter: a .safetensors file for diffusers, or a folder of PEFT", 0, 0, 0, NULL},
        {"config", MBL_ARG_TEXT, &o.config, "RUN.yaml",
         "not needed: the checkpoint has its run's; one that is given has to have the same adapter", 0, 0, 0,
         NULL},
        {"set", MBL_ARG_TEXTS, &o.sets, "KEY=VALUE", "overrides a key of RUN.yaml", 0, 0, 0, NULL},
        {"precision", MBL_ARG_CHOICE, &o.precision, "NAME", "compute type", 0, 0, 0, precisions},
        {"low-memory", MBL_ARG_FLAG, &o.low_memory, NULL,
         "of a text encoder only one layer is in memory at a time, as with model.low_memory", 0, 0, 0, NULL},
        {"batch", MBL_ARG_COUNT, &o.batch, "N", "images sampled at once", 0, 1, 4096, NULL},
        {"threads", MBL_ARG_COUNT, &o.threads, "N", "0: OMP_NUM_THREADS, or the CPUs it may use", 0, 0, 4096,
         NULL},
        MBL_ARG_QUIET(&quiet)};
    const mbl_args_t spec = {"sample", "", about, args, sizeof args / sizeof *args, 0, 0};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    mbl_log_set_quiet(quiet);
    status = sample(&o);
    mbl_free(rest.items);
    mbl_free(o.prompts.items);
    mbl_free(o.sets.items);
    return mbl_status_exit_code(status);
}
