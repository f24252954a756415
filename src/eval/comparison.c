/* Comparisons: who draws what, and the drawing. */
#include "eval/comparison.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/lora_file.h"
#include "run/evaluate.h"
#include "run/micro_batch.h"
#include "run/resume.h"
#include "run/rundir.h"
#include "run/state.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* ---- prompt sets ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

static bool set_is_there(const mbl_comparison_t *l, const char *name) {
    for (size_t i = 0; i < l->n_sets; i++)
        if (strcmp(l->sets[i].name, name) == 0)
            return true;
    return false;
}

/* The file's name without folder and suffix, or all of it where another set has that name. */
static char *set_name(const mbl_comparison_t *l, const char *text) {
    const char *slash = strrchr(text, '/'), *name = slash ? slash + 1 : text, *dot = strrchr(name, '.');
    char *out = mbl_format("%.*s", (int)(dot && dot > name ? (size_t)(dot - name) : strlen(name)), name);
    if (!out || !set_is_there(l, out))
        return out;
    mbl_free(out);
    return mbl_strdup(text);
}

/* A file, or for one rank alone a pipe. */
static bool is_there(const char *path, int ranks) {
    struct stat about;
    return stat(path, &about) == 0 && (S_ISREG(about.st_mode) || (ranks == 1 && !S_ISDIR(about.st_mode)));
}

static mbl_status_t find_set(mbl_comparison_t *l, const char *text, mbl_comparison_set_t *s) {
    mbl_engine_t *engine = l->engine;
    bool test = strcmp(text, "test") == 0;
    if (test || strcmp(text, "train") == 0) {
        s->set = test ? &engine->test : &engine->train;
        s->exist = s->set->prompts.count;
        return MBL_OK;
    }
    if (!ends_with(text, ".txt") && !ends_with(text, ".jsonl"))
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "eval: --prompts: \"%s\" is no set of prompts; expected test or train (those of RUN.yaml), a "
            ".txt with a prompt a line or a .jsonl with an object a line",
            text);
    if (!is_there(text, engine->comm->size))
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "eval: --prompts: there is no file %s; expected test or train (those of RUN.yaml) or a file of "
            "prompts",
            text);
    const mbl_encoder_t encoder = mbl_pipeline_encoder(engine->pipeline);
    MBL_TRY(mbl_prompt_set_read(engine->config, text, engine->config->eval.prompts, &encoder, &s->exist,
                                &s->own));
    s->set = &s->own;
    return MBL_OK;
}

static mbl_status_t add_set(mbl_comparison_t *l, const char *text) {
    mbl_comparison_set_t *s = &l->sets[l->n_sets];
    size_t each = l->engine->config->eval.prompts;
    s->name = set_name(l, text);
    if (!s->name)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the name of %s", text);
    bool twice = set_is_there(l, s->name);
    l->n_sets++; /* freed with the comparison from here on */
    if (twice)
        return MBL_FAIL(MBL_ERR_USAGE, "eval: --prompts: %s is given twice; expected once", text);
    MBL_TRY(find_set(l, text, s));
    s->prompts = s->exist < each ? s->exist : each;
    s->first = l->images;
    s->images = each * l->options.n_seeds;
    l->images += s->images;
    l->prompts += s->prompts;
    return MBL_OK;
}

/* Which prompt every row shows: those of a set after those of the sets before it. */
static mbl_status_t number_prompts(mbl_comparison_t *l) {
    size_t each = l->engine->config->eval.prompts, before = 0;
    MBL_ALLOC(l->prompt, l->images);
    for (size_t i = 0; i < l->n_sets; i++) {
        const mbl_comparison_set_t *s = &l->sets[i];
        for (size_t j = 0; j < s->images; j++)
            l->prompt[s->first + j] = (uint32_t)(before + j % each % s->prompts);
        before += s->prompts;
    }
    return MBL_OK;
}

static mbl_status_t add_sets(mbl_comparison_t *l) {
    const mbl_comparison_options_t *o = &l->options;
    MBL_ALLOC(l->sets, o->n_prompts ? o->n_prompts : 1);
    if (o->n_prompts == 0)
        MBL_TRY(add_set(l, "test"));
    for (size_t i = 0; i < o->n_prompts; i++)
        MBL_TRY(add_set(l, o->prompts[i]));
    return number_prompts(l);
}

/* ---- candidates ---- */

static bool candidate_is_there(const mbl_comparison_t *l, const char *name) {
    for (size_t i = 0; i < l->n_candidates; i++)
        if (strcmp(l->candidates[i].name, name) == 0)
            return true;
    return false;
}

/* RUN@STEP for the checkpoint of a run; its path when it lies in none, or when that name is taken. */
static char *checkpoint_name(const mbl_comparison_t *l, const char *path, size_t step) {
    char folder[PATH_MAX];
    char *name = NULL;
    if (mbl_rundir_of(path, folder)) {
        name = mbl_format("%s@%zu", strrchr(folder, '/') + 1, step);
        if (name && !candidate_is_there(l, name))
            return name;
    }
    mbl_free(name);
    return mbl_strdup(path);
}

/* A checkpoint ready to draw. Its adapter may be laid out otherwise than the configuration says, so that part
 * of the configuration is the checkpoint's. */
typedef struct {
    mbl_config_t *own, config; /* config: shallow */
    mbl_engine_t engine;
    mbl_state_t state;
} loaded_t;

static void close_loaded(loaded_t *c) {
    mbl_state_free(&c->state);
    mbl_config_free(c->own);
    memset(c, 0, sizeof *c);
}

static mbl_status_t make_state(const mbl_comparison_t *l, const char *path, size_t *step, loaded_t *c) {
    const mbl_config_t *config = l->engine->config;
    MBL_TRY(mbl_resume_config(path, config->model.path, &c->own, step));
    if (l->options.same_lora)
        MBL_TRY(mbl_resume_same_adapter(config, "--set", c->own, path));
    else if (l->engine->comm->rank == 0)
        MBL_TRY(mbl_resume_log_adapter(config, c->own, path));
    c->config = *config;
    c->config.model.lora = c->own->model.lora;
    c->engine = *l->engine;
    c->engine.config = &c->config;
    return mbl_state_new(&c->engine, &c->state);
}

/* Collective; close_loaded also after a failure. */
static mbl_status_t open_loaded(const mbl_comparison_t *l, const char *path, size_t *step, loaded_t *c) {
    memset(c, 0, sizeof *c);
    MBL_TRY(mbl_comm_agree(l->engine->comm, make_state(l, path, step, c)));
    return mbl_state_load_adapters(&c->state, path);
}

/* Takes over the name. */
static mbl_status_t add_candidate(mbl_comparison_t *l, char *name, const char *path, bool is_lora,
                                  size_t step) {
    const char *option = is_lora ? "lora" : "checkpoint";
    bool twice = name && candidate_is_there(l, name);
    mbl_candidate_t *e = &l->candidates[l->n_candidates];
    mbl_status_t status = MBL_OK;
    for (size_t i = 1; i < l->n_candidates; i++)
        if (strcmp(l->candidates[i].path, path) == 0)
            status = MBL_FAIL(MBL_ERR_USAGE, "eval: --%s: %s is given twice; expected once", option, path);
    if (!name)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a name");
    else if (status == MBL_OK && twice)
        status =
            MBL_FAIL(MBL_ERR_USAGE, "eval: --%s: the name %s is taken; expected another, as in --%s NAME=%s",
                     option, name, option, path);
    if (status != MBL_OK) {
        mbl_free(name);
        return status;
    }
    *e = (mbl_candidate_t){.name = name, .path = path, .is_lora = is_lora, .step = step};
    l->n_candidates++;
    MBL_ALLOC(e->scores, l->images * l->engine->k);
    return MBL_OK;
}

/* All candidates draw by the configuration's schedule, whatever their runs did. */
static void log_schedule(const mbl_comparison_t *l, const char *path, const mbl_config_t *made) {
    const mbl_sigma_schedule_kind_t here = l->engine->config->rollout.schedule;
    if (made->rollout.schedule != here && l->engine->comm->rank == 0)
        MBL_WARN("%s: its run drew by rollout.schedule: %s, its images are drawn by %s here", path,
                 mbl_config_word("rollout.schedule", (int)made->rollout.schedule),
                 mbl_config_word("rollout.schedule", (int)here));
}

/* FILE or NAME=FILE; a file whose name has a = in it goes before. */
static mbl_status_t add_checkpoint(mbl_comparison_t *l, const char *text) {
    const char *equals = strchr(text, '=');
    const char *path = equals && !mbl_file_exists(text) ? equals + 1 : text;
    size_t step = 0;
    loaded_t c;
    if (path > text && (equals == text || !*path))
        return MBL_FAIL(MBL_ERR_USAGE, "eval: --checkpoint: \"%s\"; expected FILE or NAME=FILE", text);
    if (!mbl_file_exists(path))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "eval: --checkpoint: there is no file %s; expected one of marble train such as "
                        "runs/run/checkpoints/latest.h5",
                        path);
    mbl_status_t status = open_loaded(l, path, &step, &c);
    if (status == MBL_OK)
        log_schedule(l, path, c.own);
    close_loaded(&c);
    MBL_TRY(status);
    char *name =
        path > text ? mbl_format("%.*s", (int)(equals - text), text) : checkpoint_name(l, path, step);
    return mbl_comm_agree(l->engine->comm, add_candidate(l, name, path, false, step));
}

/* The adapter of a file ready to draw. */
typedef struct {
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
} given_t;

static mbl_status_t open_given(const mbl_comparison_t *l, const char *path, given_t *g) {
    memset(g, 0, sizeof *g);
    return mbl_lora_open(mbl_pipeline_model(l->engine->pipeline), path, &g->lora, &g->adapter);
}

static void close_given(const mbl_comparison_t *l, given_t *g) {
    if (g->lora)
        mbl_adapter_free(mbl_pipeline_model(l->engine->pipeline), &g->adapter);
    mbl_lora_free(g->lora);
}

/* The file's name without folder and suffix, or its path where that name is taken. */
static char *lora_name(const mbl_comparison_t *l, const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    char *name = mbl_format("%.*s", (int)(end - start), path + start);
    char *suffix = name ? strstr(name, ".safetensors") : NULL;
    if (suffix && suffix > name && strcmp(suffix, ".safetensors") == 0)
        *suffix = 0;
    if (!name || !candidate_is_there(l, name))
        return name;
    mbl_free(name);
    return mbl_strdup(path);
}

static mbl_status_t try_lora(mbl_comparison_t *l, const char *text) {
    const char *equals = strchr(text, '=');
    bool there = mbl_file_exists(text) || mbl_folder_exists(text);
    const char *path = equals && !there ? equals + 1 : text;
    given_t g;
    if (path > text && (equals == text || !*path))
        return MBL_FAIL(MBL_ERR_USAGE, "eval: --lora: \"%s\"; expected FILE or NAME=FILE", text);
    if (!mbl_file_exists(path) && !mbl_folder_exists(path))
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "eval: --lora: there is no file or folder %s; expected a LoRA in safetensors, or a folder "
            "of PEFT",
            path);
    MBL_TRY(open_given(l, path, &g));
    close_given(l, &g);
    return add_candidate(l, path > text ? mbl_format("%.*s", (int)(equals - text), text) : lora_name(l, path),
                         path, true, 0);
}

static mbl_status_t add_base(mbl_comparison_t *l) {
    MBL_ALLOC(l->candidates, l->options.n_checkpoints + l->options.n_loras + 1);
    return add_candidate(l, mbl_strdup("base"), NULL, false, 0);
}

static mbl_status_t open_all(mbl_comparison_t *l) {
    mbl_comm_t *comm = l->engine->comm;
    MBL_TRY(mbl_comm_agree(comm, add_sets(l)));
    MBL_TRY(mbl_comm_agree(comm, add_base(l)));
    for (size_t i = 0; i < l->options.n_checkpoints; i++)
        MBL_TRY(add_checkpoint(l, l->options.checkpoints[i]));
    for (size_t i = 0; i < l->options.n_loras; i++)
        MBL_TRY(mbl_comm_agree(comm, try_lora(l, l->options.loras[i])));
    return MBL_OK;
}

mbl_status_t mbl_comparison_open(mbl_engine_t *engine, const mbl_comparison_options_t *options,
                                 mbl_comparison_t *out) {
    memset(out, 0, sizeof *out);
    out->engine = engine;
    out->options = *options;
    if (options->n_seeds == 0) {
        out->seed = engine->config->eval.seed;
        out->options.seeds = &out->seed;
        out->options.n_seeds = 1;
    }
    mbl_status_t status = open_all(out);
    if (status != MBL_OK)
        mbl_comparison_free(out);
    return status;
}

void mbl_comparison_free(mbl_comparison_t *l) {
    for (size_t i = 0; i < l->n_sets; i++) {
        mbl_free(l->sets[i].name);
        mbl_prompt_set_free(&l->sets[i].own);
    }
    for (size_t i = 0; i < l->n_candidates; i++) {
        mbl_free(l->candidates[i].name);
        mbl_free(l->candidates[i].scores);
    }
    mbl_free(l->sets);
    mbl_free(l->candidates);
    mbl_free(l->prompt);
    memset(l, 0, sizeof *l);
}

/* ---- drawing ---- */

typedef struct {
    mbl_comparison_t *comparison;
    mbl_sampler_plan_t plan;
    const volatile sig_atomic_t *stop;
    size_t done;
    double start;
} drawing_t;

static void log_progress(const drawing_t *d, const mbl_candidate_t *e, const mbl_comparison_set_t *s,
                         uint64_t seed) {
    const mbl_comparison_t *l = d->comparison;
    size_t all = l->n_candidates * l->n_sets * l->options.n_seeds;
    char left[32];
    mbl_duration((mbl_now() - d->start) / (double)d->done * (double)(all - d->done), left);
    MBL_INFO("eval %zu/%zu: %s on %s, seed %llu  | left %s", d->done, all, e->name, s->name,
             (unsigned long long)seed, left);
}

static mbl_status_t draw_seeds(drawing_t *d, mbl_candidate_t *e, const mbl_comparison_set_t *s,
                               const mbl_adapter_t *adapter, mbl_evaluator_t *evaluator) {
    const mbl_comparison_t *l = d->comparison;
    mbl_eval_score_t means[MBL_MAX_REWARDS];
    size_t each = l->engine->config->eval.prompts;
    for (size_t i = 0; i < l->options.n_seeds; i++) {
        mbl_evaluator_reseed(evaluator, l->options.seeds[i]);
        MBL_TRY(mbl_evaluator_run(evaluator, adapter, means));
        MBL_TRY(mbl_evaluator_scores(evaluator, e->scores + (s->first + i * each) * l->engine->k));
        d->done++;
        log_progress(d, e, s, l->options.seeds[i]);
    }
    return MBL_OK;
}

static mbl_status_t new_evaluator(const drawing_t *d, const mbl_comparison_set_t *s, const mbl_lora_t *lora,
                                  size_t left, mbl_evaluator_t **out) {
    const mbl_engine_t *engine = d->comparison->engine;
    mbl_evaluator_options_t options = {.comm = engine->comm,
                                       .pipeline = engine->pipeline,
                                       .lora = lora,
                                       .pool = engine->pool,
                                       .set = s->set,
                                       .k = engine->k,
                                       .images = engine->config->eval.prompts,
                                       .plan = &d->plan,
                                       .guidance = mbl_engine_guidance(engine->config, &engine->negative),
                                       .stop = d->stop};
    const mbl_passes_t passes = {
        .pipeline = engine->pipeline, .lora = lora, .there = options.images, .left = left};
    mbl_fit_t fit;
    MBL_TRY(mbl_micro_batch_fit(engine->config, &passes, &fit));
    options.micro_batch = fit.rows;
    return mbl_evaluator_new(&options, out);
}

static mbl_status_t draw_set(drawing_t *d, mbl_candidate_t *e, const mbl_comparison_set_t *s,
                             const mbl_lora_t *lora, const mbl_adapter_t *adapter) {
    mbl_engine_t *engine = d->comparison->engine;
    mbl_evaluator_t *evaluator = NULL;
    size_t left;
    MBL_TRY(mbl_micro_batch_left(engine->comm, MBL_OK, engine->ops, &left));
    mbl_status_t status = mbl_comm_agree(engine->comm, new_evaluator(d, s, lora, left, &evaluator));
    if (status == MBL_OK)
        status = draw_seeds(d, e, s, adapter, evaluator);
    mbl_evaluator_free(evaluator);
    return status;
}

static mbl_status_t draw_given(drawing_t *d, mbl_candidate_t *e) {
    mbl_comparison_t *l = d->comparison;
    given_t g;
    mbl_status_t status = mbl_comm_agree(l->engine->comm, open_given(l, e->path, &g));
    for (size_t i = 0; i < l->n_sets && status == MBL_OK; i++)
        status = draw_set(d, e, &l->sets[i], g.lora, &g.adapter);
    close_given(l, &g);
    return status;
}

static mbl_status_t draw_candidate(drawing_t *d, mbl_candidate_t *e) {
    mbl_comparison_t *l = d->comparison;
    if (e->is_lora)
        return draw_given(d, e);
    loaded_t c;
    memset(&c, 0, sizeof c);
    mbl_status_t status = e->path ? open_loaded(l, e->path, &e->step, &c) : MBL_OK;
    const mbl_policy_t *policy = &c.state.update.policy;
    const mbl_adapter_t *adapter = !e->path                       ? NULL
                                   : l->options.adapter[0] == 'c' ? &policy->in_current
                                                                  : &policy->in_ema;
    for (size_t i = 0; i < l->n_sets && status == MBL_OK; i++)
        status = draw_set(d, e, &l->sets[i], c.state.lora, adapter);
    close_loaded(&c);
    return status;
}

mbl_status_t mbl_comparison_run(mbl_comparison_t *l, const volatile sig_atomic_t *stop) {
    const mbl_config_t *config = l->engine->config;
    const mbl_sigma_schedule_t schedule = mbl_engine_schedule(config, false);
    drawing_t d = {.comparison = l, .stop = stop, .start = mbl_now()};
    MBL_TRY(mbl_sampler_plan(config->eval.solver, config->eval.steps, &schedule, &d.plan));
    for (size_t i = 0; i < l->n_candidates; i++)
        MBL_TRY(draw_candidate(&d, &l->candidates[i]));
    return MBL_OK;
}
