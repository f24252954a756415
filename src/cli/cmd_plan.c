/* marble plan: memory and time before any GPU is paid for. */
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/plan/plan.h"
#include "cli/run_args.h"
#include "rl/types.h"

#include <string.h>

static const char about[] =
    "Says what a run takes on a GPU, without one: the time of an epoch, a bound by the datasheets of A100,\n"
    "H100, H200 and B200 and an estimate by what others measured; whether it fits, and device memory by\n"
    "part; with --details, for a rollout micro-batch, a training micro-batch and an optimizer step, the\n"
    "calls, launches, arithmetic and bytes of every operation, with the least bytes it could do with.\n"
    "Either of a configuration or of a transformer's config.json:\n"
    "    marble plan run.yaml --ranks 8 --gpu h100\n"
    "    marble plan --model deploy/examples/sd3.5-medium.json --size 64 --tokens 205 --batch 9\n"
    "The options from --size on belong to --model.";

/* What the options say of the run that --model's file does not. */
typedef struct {
    size_t size, tokens, batch, rewards, rank, steps, images, prompts;
    const char *precision;
} sizes_t;

static mbl_status_t shape_of_model(const char *path, const sizes_t *sizes, size_t ranks,
                                   mbl_plan_shape_t *out) {
    mbl_plan_shape_t shape = {.dtype = strcmp(sizes->precision, "f32") == 0 ? MBL_F32 : MBL_BF16,
                              .lora = {.rank = sizes->rank, .alpha = 2 * (double)sizes->rank},
                              .tokens = sizes->tokens,
                              .prompts = sizes->prompts,
                              .rewards = sizes->rewards,
                              .images = sizes->images,
                              .ranks = ranks,
                              .rollout_batch = sizes->batch,
                              .train_batch = sizes->batch,
                              .rollout_steps = sizes->steps,
                              .solver = MBL_SOLVER_DPM2,
                              .inner_epochs = 1,
                              .updates = 1,
                              .kl = true};
    shape.timesteps = sizes->steps > 1 ? sizes->steps * 99 / 100 : 1;
    MBL_TRY(mbl_plan_read_model(path, sizes->size, &shape));
    *out = shape;
    return MBL_OK;
}

static mbl_status_t shape_of_run(const char *yaml, const mbl_arg_texts_t *sets, size_t ranks, double memory,
                                 mbl_plan_shape_t *out) {
    mbl_config_t *config;
    MBL_TRY(mbl_config_load(yaml, sets->items, sets->count, &config));
    mbl_status_t status = mbl_config_check(config, ranks);
    if (status == MBL_OK)
        status = mbl_plan_shape(config, ranks, memory, out);
    mbl_config_free(config);
    return status;
}

static void choose_gpus(const char *name, mbl_plan_view_t *view) {
    if (name)
        view->gpu[view->gpus++] = mbl_gpu_find(name);
    for (size_t i = 0; !name && mbl_gpu_at(i) && i < MBL_PLAN_GPUS; i++)
        view->gpu[view->gpus++] = mbl_gpu_at(i);
}

/* The memory that micro-batches are to fit into: what was said, or the least of the GPUs'. */
static double memory_of(const mbl_plan_view_t *view) {
    double least = view->memory;
    for (size_t i = 0; i < view->gpus && !(view->memory > 0); i++)
        if (i == 0 || view->gpu[i]->memory < least)
            least = view->gpu[i]->memory;
    return least;
}

static mbl_status_t print(mbl_plan_view_t *view, const char *json) {
    mbl_plan_t plan;
    mbl_status_t status = MBL_OK;
    MBL_TRY(mbl_plan(view->shape, &plan));
    view->plan = &plan;
    if (!json || strcmp(json, "-") != 0)
        status = mbl_plan_print(view);
    if (status == MBL_OK && json)
        status = mbl_plan_write(view, json);
    mbl_plan_free(&plan);
    return status;
}

/* The run on 8, 16, ... 512 GPUs of the first kind of the view. */
static mbl_status_t print_by_number(const char *yaml, const mbl_arg_texts_t *sets,
                                    const mbl_plan_view_t *view) {
    enum { FIRST = 8, LAST = 512, MOST = 7 };
    mbl_plan_point_t point[MOST];
    size_t n = 0;
    for (size_t ranks = FIRST; ranks <= LAST; ranks *= 2, n++) {
        mbl_plan_shape_t shape;
        mbl_plan_t plan;
        MBL_TRY(shape_of_run(yaml, sets, ranks, mbl_plan_gpu_memory(view, 0), &shape));
        mbl_status_t status = mbl_plan(&shape, &plan);
        if (status == MBL_OK) {
            point[n] = (mbl_plan_point_t){.ranks = ranks,
                                          .images = shape.all_images,
                                          .rollout_batch = shape.rollout_batch,
                                          .train_batch = shape.train_batch};
            mbl_plan_estimate(view->gpu[0], &shape, &plan, &point[n].time);
            mbl_plan_free(&plan);
        }
        mbl_plan_shape_free(&shape);
        MBL_TRY(status);
    }
    return mbl_plan_print_points(view, point, n);
}

int mbl_cmd_plan(int argc, char **argv) {
    static const char *const gpus[] = {"a100", "h100", "h200", "b200", NULL};
    static const char *const precisions[] = {"bf16", "f32", NULL};
    const char *model = NULL, *gpu = NULL, *json = NULL;
    size_t ranks = 1;
    mbl_plan_shape_t shape = {0};
    mbl_plan_view_t view = {.shape = &shape};
    bool helped = false, merged = false, by_number = false;
    sizes_t sizes = {0, 205, 9, 5, 32, 25, 144, 100, "bf16"};
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE", "overrides a key of RUN.yaml", 0, 0, 0, NULL},
        {"ranks", MBL_ARG_COUNT, &ranks, "N", "GPUs of the run", 0, 1, 65536, NULL},
        {"by-number", MBL_ARG_FLAG, &by_number, NULL,
         "a table of RUN.yaml on 8 to 512 GPUs (of --gpu, else h100)", 0, 0, 0, NULL},
        {"gpu", MBL_ARG_CHOICE, &gpu, "GPU", "one instead of all", 0, 0, 0, gpus},
        {"memory", MBL_ARG_NUMBER, &view.memory, "GB", "of each GPU, instead of what its datasheet says", 0,
         0, 1e6, NULL},
        {"launch-us", MBL_ARG_NUMBER, &view.launch, "X", "microseconds added for every launch", 0, 0, 1000,
         NULL},
        {"json", MBL_ARG_OUT, &json, "[FILE]", "as JSON, to standard output without a FILE", 0, 0, 0, NULL},
        {"details", MBL_ARG_FLAG, &view.details, NULL, "every operation of every phase besides", 0, 0, 0,
         NULL},
        {"markdown", MBL_ARG_FLAG, &view.markdown, NULL, "tables as Markdown", 0, 0, 0, NULL},
        {"model", MBL_ARG_TEXT, &model, "FILE", "config.json of a transformer, instead of RUN.yaml", 0, 0, 0,
         NULL},
        {"merged", MBL_ARG_FLAG, &merged, NULL, "the rollout with its adapter merged into the weights", 0, 0,
         0, NULL},
        {"size", MBL_ARG_COUNT, &sizes.size, "N", "side of the latents; 0: the file's sample_size", 0, 0,
         65536, NULL},
        {"tokens", MBL_ARG_COUNT, &sizes.tokens, "N", "context tokens", 0, 1, 65536, NULL},
        {"batch", MBL_ARG_COUNT, &sizes.batch, "N", "images of a micro-batch", 0, 1, 4096, NULL},
        {"rewards", MBL_ARG_COUNT, &sizes.rewards, "N", "rewards", 0, 1, MBL_MAX_REWARDS, NULL},
        {"rank", MBL_ARG_COUNT, &sizes.rank, "N", "rank of the adapters", 0, 1, 1024, NULL},
        {"steps", MBL_ARG_COUNT, &sizes.steps, "N", "sampling steps", 0, 1, MBL_SAMPLER_MAX_STEPS, NULL},
        {"images", MBL_ARG_COUNT, &sizes.images, "N", "images of an epoch on a rank", 0, 1, 1e6, NULL},
        {"prompts", MBL_ARG_COUNT, &sizes.prompts, "N", "prompts kept encoded on the device", 0, 1, 1e6,
         NULL},
        {"precision", MBL_ARG_CHOICE, &sizes.precision, "TYPE", "of matrix products", 0, 0, 0, precisions}};
    const mbl_args_t spec = {"plan", "[RUN.yaml]", about, args, sizeof args / sizeof *args, 0, 1};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    choose_gpus(by_number && !gpu ? "h100" : gpu, &view);
    view.memory *= 1e9;
    if (!model == (rest.count == 0))
        status = MBL_FAIL(MBL_ERR_USAGE, "plan: expected either RUN.yaml or --model FILE");
    else if (by_number && (model || json || ranks > 1 || view.details || merged || view.launch > 0))
        status = MBL_FAIL(MBL_ERR_USAGE, "plan: --by-number goes with RUN.yaml, without --model, --ranks, "
                                         "--json, --details, --merged and --launch-us");
    else if (by_number)
        status = print_by_number(rest.items[0], &sets, &view);
    else if (model)
        status = shape_of_model(model, &sizes, ranks, &shape);
    else
        status = shape_of_run(rest.items[0], &sets, ranks, memory_of(&view), &shape);
    view.launch *= 1e-6;
    if (status == MBL_OK && merged)
        shape.merge = shape.merged = true;
    if (status == MBL_OK && !by_number)
        status = print(&view, json);
    mbl_plan_shape_free(&shape);
    mbl_free(rest.items);
    mbl_free(sets.items);
    return mbl_status_exit_code(status);
}
