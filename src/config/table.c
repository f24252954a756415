/* Every key of run.yaml: default, range, unit, meaning. Parsing, --set, --help-config, the resolved run.yaml
 * and all messages follow from this table. */
#include "config/table.h"

#include "model/text/prompt.h"

#include <stdio.h>
#include <string.h>

#define LARGE MBL_FIELD_LARGE
#define FIELD(key, kind, fallback, low, high, ends, unit, words, help)                                       \
    { #key, kind, offsetof(mbl_config_t, key), fallback, low, high, ends, unit, words, help, NULL }
#define COUNT(key, fallback, low, high, unit, help)                                                          \
    FIELD(key, MBL_FIELD_COUNT, fallback, low, high, MBL_FIELD_CLOSED, unit, NULL, help)
/* A count, or one of these words (MBL_CONFIG_AUTO and others). */
#define COUNT_OR(key, fallback, low, high, unit, words, help)                                                \
    FIELD(key, MBL_FIELD_COUNT, fallback, low, high, MBL_FIELD_CLOSED, unit, words, help)
#define NUMBER(key, fallback, low, high, ends, help)                                                         \
    FIELD(key, MBL_FIELD_NUMBER, fallback, low, high, MBL_FIELD_##ends, NULL, NULL, help)
#define CHOICE(key, fallback, words, help) FIELD(key, MBL_FIELD_CHOICE, fallback, 0, 0, 0, NULL, words, help)
#define OTHER(key, kind, fallback, low, high, unit, help)                                                    \
    FIELD(key, MBL_FIELD_##kind, fallback, low, high, MBL_FIELD_CLOSED, unit, NULL, help)

static const char *const device_words[] = {"auto", "cpu", "cuda", NULL};
/* In the order of mbl_config_graphs_t. */
static const char *const graphs_words[] = {"on", "off", NULL};
static const char *const precision_words[] = {"auto", "f32", "bf16", NULL};
static const char *const source_words[] = {"signs", "file", NULL};
/* In the order of mbl_solver_t. */
static const char *const solver_words[] = {"euler", "dpm1", "dpm2", NULL};
static const char *const tensorboard_words[] = {"off", "on", NULL};
/* In the order of mbl_sigma_schedule_kind_t. */
static const char *const schedule_words[] = {"diffusers", "linear", NULL};
/* In the order of mbl_config_switch_t. */
static const char *const switch_words[] = {"off", "on", NULL};
static const char *const auto_words[] = {"auto", NULL};
/* In the order of MBL_CONFIG_AUTO, _ALL and _NONE. */
static const char *const blocks_words[] = {"auto", "all", "none", NULL};
static const char *const merge_words[] = {"auto", "never", NULL};
/* In the order of mbl_config_low_memory_t. */
static const char *const low_memory_words[] = {"off", "on", NULL};
/* In the order of mbl_config_std_t. */
static const char *const std_words[] = {"auto", "global", "group", NULL};
/* By mbl_method_t. */
#define WORD(NAME, word, flags, help) [MBL_METHOD_##NAME] = #word,
static const char *const method_words[MBL_METHODS + 1] = {MBL_METHOD_LIST(WORD, WORD)};
#undef WORD
#define HELP(NAME, word, flags, help) [MBL_METHOD_##NAME] = help,
static const char *const method_help[] = {MBL_METHOD_LIST(HELP, HELP)};
#undef HELP
static const char *const refresh_words[] = {"raw", "smooth", NULL};
/* In the order of mbl_config_common_t. */
static const char *const common_words[] = {"auto", "together", "apart", "offset", NULL};
/* In the order of mbl_config_kl_t. */
static const char *const kl_words[] = {"apart", "common", NULL};
/* In the order of mbl_config_weighted_t. */
static const char *const guard_words[] = {"off", "own_parts", NULL};
static const char *const weighted_words[] = {"sum", "mean", NULL};
/* In the order of mbl_shrink_t. */
static const char *const shrink_words[] = {"off", "equal", "average", NULL};
/* In the order of mbl_on_alarm_t. */
static const char *const alarm_words[] = {"warn", "stop", NULL};
/* In the order of mbl_alarm_switch_t. */
static const char *const alarm_switch_words[] = {"on", "off", NULL};
static const char *const level_words[] = {"debug", "info", "warn", "error", NULL};
static const char *const other_base_words[] = {"refuse", "accept", NULL};
/* In the order of mbl_config_writer_t. */
static const char *const writer_words[] = {"gather", "parallel", NULL};
/* Or a folder. */
static const char *const cache_words[] = {"auto", "off", NULL};
static const char *const norm_words[] = {"none", "rms_norm", NULL};
const char *const mbl_config_on_failure_words[] = {"skip", "stop", NULL};

static const mbl_field_t fields[] = {
    COUNT(seed, "42", 0, LARGE, NULL, "seed of every random number of the run"),
    CHOICE(device, "auto", device_words, "where the model runs; auto: a GPU if there is one"),
    CHOICE(precision, "auto", precision_words,
           "type of the matrix products; auto: bf16 on GPUs and on CPUs that have it; the loss, the Gram "
           "matrix and AdamW's moments stay f32 or f64"),
    COUNT(threads, "0", 0, 4096, "threads",
          "threads of each rank; 0: OMP_NUM_THREADS if it is set, else the CPUs this process may use, "
          "divided among the ranks that may use the same ones"),
    CHOICE(cuda.graphs, "on", graphs_words,
           "on: model passes of the same shapes are recorded once and replayed as a CUDA graph, with the "
           "same results; off: every kernel is launched by itself"),

    OTHER(model.path, FOLDER, "", 0, 0, NULL, "folder of the base model, in the layout of diffusers"),
    CHOICE(model.low_memory, "off", low_memory_words,
           "on: of a text encoder only one layer is in memory at a time, read from its file for every 64 "
           "prompts"),
    COUNT(model.lora.rank, "16", 1, 1024, NULL, "rank of the adapter's matrices A and B"),
    NUMBER(model.lora.alpha, "32", 0, 1e6, ABOVE, "the adapter's product B A is multiplied by alpha / rank"),
    OTHER(model.lora.targets, STRINGS,
          "attn.to_q, attn.to_k, attn.to_v, attn.to_out.0, attn.add_q_proj, attn.add_k_proj, "
          "attn.add_v_proj, attn.to_add_out",
          1, MBL_LORA_MAX_TARGETS, NULL,
          "linear layers that get an adapter, given by the ends of their names"),
    OTHER(model.lora.from, PATH, "", 0, 0, NULL,
          "LoRA that a new run starts from: a file of diffusers' or kohya's names or a folder of PEFT; rank, "
          "alpha "
          "and targets are its own unless they are given"),

    CHOICE(prompts.source, "signs", source_words,
           "signs: sentences of the built-in signs example; file: the files prompts.train "
           "and prompts.test"),
    OTHER(prompts.train, FILE, "", 0, 0, NULL,
          "file of training prompts: .txt with a prompt on each line, or .jsonl with an object {\"prompt\": "
          "...} on each line; for source: file"),
    OTHER(prompts.test, FILE, "", 0, 0, NULL,
          "file of held-out prompts, in the same formats; for source: file"),
    {"prompts.sources", MBL_FIELD_SOURCES, offsetof(mbl_config_t, prompts.sources), "", 0, 0, 0, NULL, NULL,
     "several files of training prompts instead of prompts.train: a list of {file, weight, name}; every "
     "epoch "
     "has prompts of each by weight, whatever the files' lengths; for source: file",
     NULL},
    NUMBER(prompts.test_share, "0", 0, 1, BELOW,
           "share of the training files' prompts that are kept apart as held-out prompts, instead of "
           "prompts.test: which ones depends on their texts alone; 0: none; for source: file"),
    COUNT(prompts.train_count, "1000", 1, 1e6, "sentences",
          "how many training sentences are generated; for source: signs"),
    COUNT(prompts.test_count, "192", 1, 1e6, "sentences",
          "how many held-out sentences are generated; for source: signs"),
    COUNT(prompts.limit, "0", 0, 1e9, "prompts",
          "only the first so many prompts of each file are used; 0: all; for source: file"),
    COUNT(prompts.groups, "24", 1, 65536, "prompts", "prompts of an epoch, over all ranks"),
    COUNT(prompts.group_size, "12", 2, 4096, "images",
          "images of each prompt; advantages compare the images of one prompt with each other"),
    COUNT(prompts.max_tokens, "128", 2, MBL_TEXT_TOKENS_MOST, "tokens",
          "tokens of a prompt that T5 reads, in models of several text encoders"),
    {"prompts.cache", MBL_FIELD_PLACE, offsetof(mbl_config_t, prompts.cache), "auto", 0, 0, 0, NULL,
     cache_words,
     "where encoded prompts are kept on disk, for this run and all that use the same text encoders; auto: "
     "$XDG_CACHE_HOME/marble/prompts or ~/.cache/marble/prompts where the encoders are large or the prompts "
     "many, else nowhere; off: they are encoded at every start and kept in memory; on a cluster, a folder "
     "that "
     "all nodes see",
     NULL},
    OTHER(
        prompts.device_bytes, BYTES, "64 MiB", 0, LARGE, "bytes",
        "an encoded set of prompts that is no larger stays on the device; of a larger one, those of an epoch "
        "or of a micro-batch of an evaluation are brought there"),

    COUNT(rollout.steps, "10", 1, MBL_SAMPLER_MAX_STEPS, "sampling steps",
          "solver steps for an image of the rollout"),
    CHOICE(rollout.solver, "dpm2", solver_words, "solver of the flow's differential equation in the rollout"),
    CHOICE(rollout.schedule, "diffusers", schedule_words,
           "sigmas of rollouts, evaluations and training; diffusers: as its FlowMatchEulerDiscreteScheduler "
           "spaces them for inference, shifted twice, the last of them small; linear: linspace(1, 1 / steps, "
           "steps), shifted once, as earlier versions of marble did"),
    NUMBER(rollout.shift, "3.0", 0, 100, ABOVE,
           "shift s of the schedule of sigmas: sigma becomes s sigma / (1 + (s - 1) sigma)"),
    CHOICE(rollout.integer_timesteps, "off", switch_words,
           "on: in rollouts the model is given its timestep, 1000 sigma, without its fraction, as in "
           "DiffusionNFT; training and evaluation keep the fraction"),
    COUNT(
        rollout.height, "0", 0, 16384, "pixels",
        "height of all images of the run, a multiple of 16 for Stable Diffusion; 0: the size that the model "
        "was made for (its sample_size)"),
    COUNT(rollout.width, "0", 0, 16384, "pixels", "their width; given together with the height"),
    OTHER(rollout.decode_bytes, BYTES, "1073741824", 1, LARGE, "bytes",
          "memory for making images of latents, where the model has a vae: as many at once as fit, one at "
          "least"),
    COUNT(rollout.decode_tile, "128", 4, 4096, "latents",
          "images with a longer side are decoded in overlapping tiles of this side, a multiple of 4, which "
          "takes less memory"),
    COUNT_OR(rollout.micro_batch, "48", 1, 65536, "images", auto_words,
             "images that a rank samples at once in the rollout, at most: fewer where memory does not hold "
             "them; auto: as many as it holds; results do not depend on it beyond rounding"),
    CHOICE(rollout.merge, "auto", merge_words,
           "auto: the rollout policy's adapter is merged into the weights, which is faster, in every epoch "
           "in which merge_deviation allows it; never: it is applied beside them"),
    NUMBER(rollout.merge_deviation, "1.0e-3", 0, 1, CLOSED,
           "largest relative change of the velocities by merging, |v_merged - v| / |v|, with which a rollout "
           "runs merged"),

    COUNT(train.steps, "60", 1, 1e9, "optimizer steps", "optimizer steps of the run"),
    NUMBER(train.lr, "3.0e-4", 0, 1, ABOVE, "learning rate of AdamW"),
    NUMBER(train.beta, "0.1", 0, 100, ABOVE,
           "mixing strength beta of the implicit positive and negative policies: v+ = (1 - beta) v_old + "
           "beta v, v- = (1 + beta) v_old - beta v"),
    NUMBER(train.kl, "1.0e-4", 0, 100, CLOSED,
           "weight of the KL term |v - v_ref|^2, which holds the policy near the base model; 0: none"),
    NUMBER(train.kl_fraction, "1.0", 0, 1, ABOVE,
           "share of a step's rows (image and timestep) on which the KL term is computed, drawn anew for "
           "every step and weighted up so that its mean is the same"),
    NUMBER(train.clip, "5", 0, 1000, ABOVE, "advantages are clamped to [-clip, clip]"),
    COUNT_OR(train.micro_batch, "48", 1, 65536, "images", auto_words,
             "images that a rank trains on at once, at most: fewer where memory does not hold them; auto: as "
             "many as it holds; results do not depend on it beyond rounding, but for the units of a "
             "balance.gram_fraction or train.kl_fraction below 1, which are those of one prompt with auto"),
    COUNT_OR(
        train.checkpoint_blocks, "auto", 0, 64, "blocks", blocks_words,
        "activation checkpointing: of how many of the model's blocks, from the first on, only the inputs "
        "are kept, the rest being made again in backward passes; with the same results, in less memory "
        "and more time; auto: as few as memory asks for"),
    NUMBER(train.timestep_fraction, "0.99", 0, 1, ABOVE,
           "share of the rollout's timesteps that is trained on, for each image"),
    COUNT(train.inner_epochs, "1", 1, 100, "passes", "passes over the images of an epoch"),
    COUNT(train.updates_per_epoch, "1", 1, 4096, "optimizer steps",
          "optimizer steps in a pass over the images of an epoch; each takes its share of them"),
    NUMBER(train.grad_clip, "1.0", 0, 1e6, CLOSED,
           "largest norm of the direction, which is scaled down to it; 0: no limit"),
    NUMBER(train.weight_decay, "1.0e-4", 0, 10, CLOSED, "weight decay of AdamW"),
    NUMBER(train.adam_beta1, "0.9", 0, 1, BELOW, "decay of AdamW's first moment"),
    NUMBER(train.adam_beta2, "0.999", 0, 1, BELOW, "decay of AdamW's second moment"),
    NUMBER(train.adam_eps, "1.0e-8", 0, 1, ABOVE, "added to the root of AdamW's second moment"),
    COUNT(train.old_decay.flat, "0", 0, 1e9, "optimizer steps",
          "after every optimizer step old <- h old + (1 - h) current with h = min(max(step - flat, 0) rate, "
          "hold): h stays 0 for the first flat steps"),
    NUMBER(train.old_decay.rate, "0.001", 0, 1, CLOSED, "growth of h per optimizer step after that"),
    NUMBER(train.old_decay.hold, "0.5", 0, 1, CLOSED, "largest h"),
    NUMBER(train.ema, "0.9", 0, 1, BELOW,
           "largest decay of the average of the weights (EMA), which evaluations, export and sample use; 0: "
           "no average"),

    OTHER(rewards, REWARDS, "", 1, MBL_MAX_REWARDS, NULL,
          "what to improve: a list of {name, type, weight, min, group, on_failure, min_valid, monitor, "
          "range, options}; rewards "
          "of one group share one objective, the mean of their gradients"),

    OTHER(stages, STAGES, "", 1, 1000, NULL,
          "one set of rewards after another: a list of {steps, rewards: [names], method, weights}, whose "
          "steps add up to train.steps; the other rewards are scored only"),

    CHOICE(advantage.std, "auto", std_words,
           "scores are divided by their standard deviation over the whole step (global) or over the images "
           "of the prompt (group); auto: group with gdpo, as its paper has it, else global"),

    {"balance.method", MBL_FIELD_CHOICE, offsetof(mbl_config_t, balance.method), "marble", 0, 0, 0, NULL,
     method_words, "how the gradients of the rewards become one direction", method_help},
    CHOICE(balance.common, "auto", common_words,
           "the common part of the per-reward gradients, which no reward changes: together: balanced with "
           "every reward's own; apart: added once after balancing; offset: added once, and balancing takes "
           "it into account (with marble); auto: offset with marble unless a reward has a min, else "
           "together"),
    CHOICE(balance.kl, "apart", kl_words,
           "gradient of the KL term: apart: added once after balancing, with its own weight; common: part of "
           "every reward's gradient, which saves a backward pass in steps that solve"),
    CHOICE(balance.weighted, "sum", weighted_words,
           "for method weighted_sum: the weighted sum of an image's scores, or their weighted mean over the "
           "rewards that apply to the image"),
    CHOICE(balance.shrink, "off", shrink_words,
           "pulls a solve's alpha towards equal shares, or towards its average, the more the solutions of "
           "two halves of the prompts differ"),
    CHOICE(balance.guard, "off", guard_words,
           "own_parts: a solve's direction is moved by the least that makes it work against no reward's own "
           "part a_k (cos_part at least 0)"),
    NUMBER(balance.floor, "0.0", 0, 1, BELOW,
           "least alpha of an objective, for methods marble and marble_reference; objectives x floor may be "
           "at most 1"),
    NUMBER(balance.cagrad_c, "0.5", 0, 1, BELOW,
           "for method cagrad: radius around the mean gradient, as a share of its length"),
    NUMBER(balance.rho, "0.7", 0, 1, BELOW,
           "decay of the averaged alpha: average <- rho average + (1 - rho) new"),
    COUNT(balance.refresh_every, "1", 1, 1e9, "optimizer steps",
          "a quadratic program is solved every so many optimizer steps (10 with marble_reference); the steps "
          "between take one backward pass with the averaged alpha"),
    COUNT(balance.warmup, "0", 0, 1e9, "optimizer steps",
          "optimizer steps with equal shares before the first solve; they do not enter the averaged alpha"),
    CHOICE(balance.on_refresh, "raw", refresh_words,
           "a step that solves applies its own solution (raw) or the averaged alpha (smooth)"),
    NUMBER(balance.gram_fraction, "1.0", 0, 1, ABOVE,
           "share of a step's rows from which the Gram matrix is formed; the other rows take one backward "
           "pass with the alpha it gives"),
    COUNT(balance.diagnostics_every, "10", 0, 1e9, "optimizer steps",
          "every so many optimizer steps a method that needs no per-reward gradients forms them all the "
          "same, for the cosines in metrics.jsonl; 0: never"),
    COUNT(balance.alpha_halves, "0", 0, 1e9, "optimizer steps",
          "every so many optimizer steps the quadratic program is also solved on two halves of the prompts, "
          "which shows how much of alpha is noise; 0: never"),

    NUMBER(constraint.penalty, "10", 0, 1e6, CLOSED,
           "pressure on a reward below its min, in unit gradients per standard deviation of its scores"),
    NUMBER(constraint.rate, "0.5", 0, 1e6, CLOSED,
           "growth of the multiplier in each epoch below the min, in unit gradients per standard deviation "
           "of its scores"),
    NUMBER(constraint.smooth, "0.5", 0, 1, BELOW,
           "decay of the measured mean that is compared with min: mean <- smooth mean + (1 - smooth) new"),
    NUMBER(constraint.most, "10", 0, 1e6, ABOVE,
           "largest multiplier and largest pressure, in unit gradients"),

    CHOICE(alarms.on_alarm, "warn", alarm_words,
           "warn: a line in the log; stop: also the end of the run, with a checkpoint and exit code 1"),
    COUNT(alarms.patience, "10", 1, 1e9, "optimizer steps",
          "steps in a row for which no_variance, x0_norm_drift, alpha_collapse, no_score and reward_collapse "
          "have to hold before they are an alarm"),
    COUNT(alarms.old_equals_new, "3", 0, 1e9, "optimizer steps",
          "alarm after so many steps in a row in which the trained adapter equals the rollout policy's to "
          "the bit; 0: off"),
    NUMBER(alarms.old_drift, "0.5", 0, 1e6, CLOSED,
           "alarm when the trained adapter is further from the rollout policy's than this: |current - old| / "
           "|current|; 0: off"),
    NUMBER(alarms.no_variance, "0.95", 0, 1, CLOSED,
           "alarm when in more than this share of a reward's groups all scores are equal; 1: off"),
    NUMBER(alarms.x0_norm_drift, "0.25", 0, 1e6, CLOSED,
           "alarm when the images' root mean square differs by more than this from that of the first steps, "
           "as a share; 0: off"),
    NUMBER(alarms.alpha_collapse, "0.98", 0, 1, CLOSED,
           "alarm when one reward of several has more than this share of alpha; 1: off"),
    COUNT(alarms.alpha_stale, "100", 0, 1e9, "optimizer steps",
          "alarm when alpha was last solved for more than so many steps ago; 0: off"),
    COUNT(alarms.non_finite, "10", 0, 1e9, "optimizer steps",
          "the run ends after so many steps in a row with a loss or gradient that is not finite; each such "
          "step is left out; 0: it never ends for that"),
    COUNT(alarms.replica_mismatch, "10", 0, 1e9, "optimizer steps",
          "every so many steps the adapters of all ranks are compared; 0: never"),
    NUMBER(alarms.scorer_failed, "0.01", 0, 1, CLOSED,
           "alarm when more than this share of a reward's scores failed; 1: off"),
    NUMBER(alarms.scorer_range, "0.0", 0, 1, CLOSED,
           "alarm when more than this share of a reward's scores lies outside its scorer's range; 1: off"),

    CHOICE(alarms.no_score, "on", alarm_switch_words,
           "on: alarm when a reward that is trained has no score of any image"),
    COUNT(alarms.against_reward, "20", 0, 1e9, "optimizer steps",
          "alarm when in so many steps in a row (of those with cosines) the direction works against some "
          "reward, or against some reward's own part (cos, cos_part below 0); 0: never"),
    NUMBER(alarms.reward_collapse, "1.0", 0, 1e6, CLOSED,
           "alarm when a reward's mean lies more than this below that of the first step, in standard "
           "deviations of its scores; 0: off"),

    COUNT(eval.every, "20", 0, 1e9, "optimizer steps",
          "optimizer steps between evaluations on held-out prompts; the base model is evaluated before the "
          "first step and the adapter after the last whatever this is; 0: only then"),
    COUNT(eval.prompts, "192", 1, 1e6, "images",
          "images of an evaluation: one for each held-out prompt; if there are fewer prompts, more rounds "
          "with other noise"),
    COUNT(eval.steps, "16", 1, MBL_SAMPLER_MAX_STEPS, "sampling steps",
          "solver steps for an image of the evaluation"),
    CHOICE(eval.solver, "euler", solver_words,
           "solver of the flow's differential equation in the evaluation"),
    COUNT(eval.seed, "1234", 0, LARGE, NULL,
          "seed of the starting noise, which is the same in every evaluation"),
    NUMBER(eval.guidance, "1.0", 1, 100, CLOSED,
           "scale g of classifier-free guidance in evaluations, v = u + g (c - u) with u the velocity for "
           "eval.negative; 1: none. Rollouts and training are without"),
    OTHER(eval.negative, TEXT, "", 0, 0, NULL, "negative prompt of the guidance; empty: the empty prompt"),
    OTHER(eval.skip_layers, COUNTS, "", 0, MBL_DIT_MAX_BLOCKS - 1, NULL,
          "blocks of the transformer that skip-layer guidance leaves out, such as [7, 8, 9] for Stable "
          "Diffusion 3.5 Medium; none: no such guidance"),
    NUMBER(eval.skip_scale, "2.8", 0, 100, CLOSED,
           "scale s of skip-layer guidance, which adds s (c - c without those blocks) to v"),
    NUMBER(eval.skip_start, "0.01", 0, 1, CLOSED,
           "skip-layer guidance is in the steps after this share of them, and before skip_stop"),
    NUMBER(eval.skip_stop, "0.2", 0, 1, CLOSED, "see skip_start"),

    COUNT(checkpoint.every, "20", 0, 1e9, "optimizer steps",
          "optimizer steps between checkpoints; 0: only at the end"),
    COUNT(checkpoint.keep.last, "3", 0, 1e6, "files",
          "the newest so many checkpoints are kept; 0: all; `keep: 3` is short for `keep: {last: 3}`"),
    COUNT(checkpoint.keep.every, "0", 0, 1e9, "optimizer steps",
          "checkpoints of every so many steps are kept for good; 0: none"),
    OTHER(checkpoint.keep.best, STRINGS, "", 0, MBL_MAX_REWARDS, NULL,
          "names of rewards; of each the checkpoint with the best mean in eval.jsonl is kept"),
    CHOICE(checkpoint.other_base, "refuse", other_base_words,
           "whether a run may resume from a checkpoint of another base model, as the digest of its tensors "
           "says"),
    CHOICE(checkpoint.writer, "gather", writer_words,
           "gather: rank 0 collects and writes everything; parallel: every rank writes its share of AdamW's "
           "moments through parallel HDF5, into the same file"),

    OTHER(limits.seconds, SECONDS, "0", 0, 1e9, "seconds",
          "after this time the run writes a checkpoint and ends with exit code 75; 0: no limit"),
    OTHER(limits.margin, SECONDS, "60", 0, 1e6, "seconds",
          "the run also does so this long before SLURM_JOB_END_TIME, if that is set"),
    OTHER(limits.deadline, SECONDS, "1800", 0, 1e6, "seconds",
          "how long a rank waits for the others in one message before it ends the job; 0: for ever"),
    OTHER(limits.micro_batch_bytes, BYTES, "0", 0, LARGE, "bytes",
          "memory for the activations of the images that pass through the model at once; micro-batches are "
          "cut to fit; 0: no limit"),

    CHOICE(
        log.level, "info", level_words,
        "least level of the lines that are printed; the lines log.txt begins with are written at any level"),
    COUNT(log.samples_every, "20", 0, 1e9, "optimizer steps",
          "optimizer steps between sheets of sample images; 0: never"),
    COUNT(log.recheck_every, "0", 0, 1e9, "optimizer steps",
          "steps after which the first 8 images of every rank are scored again by all rewards; scores that "
          "differ "
          "are logged, and stand in recheck of metrics.jsonl; 0: never"),
    COUNT(log.advantages_every, "20", 0, 1e9, "optimizer steps",
          "optimizer steps between lines of advantages.jsonl, which hold the advantages of every image of a "
          "step, with its images in rollout.tar; 0: never"),
    CHOICE(log.tensorboard, "on", tensorboard_words,
           "TensorBoard event files in the run's folder, tensorboard/: every number of metrics.jsonl, "
           "evaluations, sheets of samples, histograms of advantages, run.yaml"),

    OTHER(
        service.listen, TEXT, "auto", 0, 0, NULL,
        "where rank 0 answers over HTTP with the run's page, API and stream: auto (a free port of 127.0.0.1 "
        "where the progress goes to a terminal, else off), off, HOST:PORT, or unix:PATH"),

    COUNT(pretrain.steps, "1000", 1, 1e9, "optimizer steps", "optimizer steps of the pretraining"),
    COUNT(pretrain.batch, "128", 1, 1e6, "images", "images of an optimizer step, over all ranks"),
    NUMBER(pretrain.lr, "2.0e-3", 0, 1, ABOVE, "learning rate of AdamW after the warm-up"),
    COUNT(pretrain.warmup, "100", 0, 1e9, "optimizer steps",
          "optimizer steps over which the learning rate rises from 0"),
    NUMBER(pretrain.weight_decay, "0.01", 0, 10, CLOSED, "weight decay of AdamW"),
    NUMBER(pretrain.grad_clip, "1.0", 0, 1e6, CLOSED,
           "largest norm of the gradient, which is scaled down to it; 0: no limit"),
    NUMBER(pretrain.ema, "0.999", 0, 1, BELOW,
           "largest decay of the average of the weights (EMA), which is what is saved; 0: no average"),
    COUNT(pretrain.images, "0", 0, 1e9, "images",
          "size of a fixed set of training images; 0: every image is new"),
    NUMBER(pretrain.text_share, "0.5", 0, 1, CLOSED, "share of the images that show a sign with text"),
    NUMBER(pretrain.count_share, "0.25", 0, 1, CLOSED,
           "share of the images that show shapes to count; the rest show a horizon"),
    NUMBER(pretrain.timestep_mean, "0.0", -10, 10, CLOSED,
           "mean m of the timesteps' distribution: t = sigmoid(m + s n), n standard normal"),
    NUMBER(pretrain.timestep_std, "1.0", 0, 10, ABOVE, "standard deviation s of the timesteps' distribution"),
    COUNT(pretrain.eval_every, "0", 0, 1e9, "optimizer steps",
          "optimizer steps between evaluations; 0: only at the end"),
    COUNT(pretrain.checkpoint_every, "0", 0, 1e9, "optimizer steps",
          "optimizer steps between checkpoints; 0: only at the end"),
    COUNT(pretrain.model.num_layers, "4", 1, MBL_DIT_MAX_BLOCKS, NULL, "transformer blocks"),
    COUNT(pretrain.model.attention_head_dim, "32", 2, 1024, NULL, "width of an attention head"),
    COUNT(pretrain.model.num_attention_heads, "4", 1, 256, NULL,
          "attention heads; the model's width is heads x width of a head"),
    COUNT(pretrain.model.patch_size, "4", 1, 64, "pixels", "side of a patch"),
    COUNT(pretrain.model.sample_size, "32", 1, 4096, "pixels",
          "side of an image; expected 32, as the images of the signs example have"),
    COUNT(pretrain.model.in_channels, "3", 1, 256, NULL, "channels of an image; expected 3"),
    COUNT(pretrain.model.joint_attention_dim, "128", 1, 65536, NULL, "width of the text tokens"),
    COUNT(pretrain.model.pooled_projection_dim, "128", 1, 65536, NULL, "width of the pooled text"),
    COUNT(pretrain.model.caption_projection_dim, "128", 1, 65536, NULL,
          "width to which text tokens are projected; expected the model's width"),
    COUNT(pretrain.model.pos_embed_max_size, "8", 1, 4096, "patches",
          "side of the largest image the position embedding covers, in patches"),
    OTHER(pretrain.model.dual_attention_layers, COUNTS, "", 0, MBL_DIT_MAX_BLOCKS - 1, NULL,
          "numbers of the blocks that have a second attention over the image alone"),
    CHOICE(pretrain.model.qk_norm, "rms_norm", norm_words, "normalisation of queries and keys"),
    COUNT(pretrain.model.text_layers, "2", 1, 256, NULL, "blocks of the text encoder"),
    COUNT(pretrain.model.text_tokens, "24", 4, 512, "tokens", "longest sentence; a longer one is cut"),
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static const struct {
    const char *path, *help;
} sections[] = {{"cuda", "for device: cuda"},
                {"model", "what is fine-tuned"},
                {"model.lora", "the adapter (LoRA)"},
                {"prompts", "what the images are to show"},
                {"rollout", "how the rollout policy makes the training images"},
                {"train", "loss and optimizer"},
                {"train.old_decay", "how the rollout policy (old) follows the trained one (current)"},
                {"advantage", "from scores to advantages"},
                {"balance", "from the gradients of K rewards to one direction"},
                {"constraint", "how rewards with a min are kept at or above it"},
                {"alarms", "limits whose violation is logged or ends the run; all steps are optimizer steps"},
                {"eval", "evaluation on held-out prompts"},
                {"checkpoint", "checkpoints, from which a run resumes"},
                {"checkpoint.keep", "which checkpoints are kept"},
                {"limits", "time and memory"},
                {"log", "what is logged"},
                {"service", "the live page and API of a run"},
                {"pretrain", "used by `marble pretrain` only"},
                {"pretrain.model", "a fresh model, with the names of diffusers' config.json"}};

static const char *const unsupported[] = {"balance.weights",  "rollout.solver=sde", "eval.solver=sde",
                                          "rollout.sde",      "rewards.max",        "limits.device_bytes",
                                          "prompts.stratify", "prompts.quoted"};

/* Keys of earlier versions that have another name now. */
static const struct { const char *before, *now; } renamed[] = {{"pretrain.pictures", "pretrain.images"}};

const char *mbl_config_renamed(const char *path) {
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
        if (strcmp(path, renamed[i].before) == 0)
            return renamed[i].now;
    return path;
}

static const mbl_config_retired_t retired[] = {
    {"balance.metric", "plain",
     "an experiment that is over: its steps were no better than plain's (tests/study/README.md)"}};

const mbl_config_retired_t *mbl_config_retired(size_t i) {
    return i < sizeof retired / sizeof *retired ? &retired[i] : NULL;
}

const mbl_field_t *mbl_config_fields(size_t *count) {
    *count = N_FIELDS;
    return fields;
}

const mbl_field_t *mbl_config_field(const char *key) {
    for (size_t i = 0; i < N_FIELDS; i++)
        if (strcmp(fields[i].key, key) == 0)
            return &fields[i];
    return NULL;
}

const mbl_field_t *mbl_config_shorthand(const char *path) {
    return strcmp(path, "checkpoint.keep") == 0 ? mbl_config_field("checkpoint.keep.last") : NULL;
}

bool mbl_config_is_section(const char *path) {
    size_t n = strlen(path);
    for (size_t i = 0; i < N_FIELDS; i++)
        if (strncmp(fields[i].key, path, n) == 0 && fields[i].key[n] == '.')
            return true;
    return false;
}

const char *mbl_config_section_help(const char *path) {
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (strcmp(sections[i].path, path) == 0)
            return sections[i].help;
    return "";
}

bool mbl_config_is_unsupported(const char *text) {
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (strcmp(unsupported[i], text) == 0)
            return true;
    return false;
}

const char *mbl_config_word(const char *key, int choice) {
    const mbl_field_t *field = mbl_config_field(key);
    if (!field || field->kind != MBL_FIELD_CHOICE)
        return "";
    for (int i = 0; field->words[i]; i++)
        if (i == choice)
            return field->words[i];
    return "";
}

size_t mbl_config_count_of_word(size_t i) {
    return MBL_CONFIG_AUTO - i;
}

const char *mbl_config_word_of_count(const mbl_field_t *field, size_t value) {
    for (size_t i = 0; field->kind == MBL_FIELD_COUNT && field->words && field->words[i]; i++)
        if (value == mbl_config_count_of_word(i))
            return field->words[i];
    return NULL;
}

static char *join_words(const char *const *words, const char *glue, char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; words[i] && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? glue : "", words[i]);
    return out;
}

static bool is_numeric(const mbl_field_t *field) {
    return field->kind <= MBL_FIELD_SECONDS;
}

char *mbl_config_range(const mbl_field_t *field, char *out, size_t size) {
    out[0] = 0;
    if (field->kind == MBL_FIELD_CHOICE)
        return join_words(field->words, " | ", out, size);
    if (field->kind == MBL_FIELD_PLACE) {
        size_t used = strlen(join_words(field->words, " | ", out, size));
        snprintf(out + used, size - used, " | a folder");
        return out;
    }
    if (!is_numeric(field))
        return out;
    if (field->high >= LARGE)
        snprintf(out, size, "at least %.15g", field->low);
    else
        snprintf(out, size, "%c%.15g, %.15g%c", field->ends & MBL_FIELD_ABOVE ? '(' : '[', field->low,
                 field->high, field->ends & MBL_FIELD_BELOW ? ')' : ']');
    for (size_t i = 0; field->words && field->words[i]; i++)
        snprintf(out + strlen(out), size - strlen(out), " or %s", field->words[i]);
    return out;
}

char *mbl_config_expected(const mbl_field_t *field, char *out, size_t size) {
    static const char *const what[] = {
        [MBL_FIELD_COUNT] = "a whole number",
        [MBL_FIELD_BYTES] = "a whole number of bytes (or 512 MiB)",
        [MBL_FIELD_NUMBER] = "a number",
        [MBL_FIELD_SECONDS] = "a number of seconds (or 90 s, 15 min, 2 h)",
        [MBL_FIELD_CHOICE] = "one of ",
        [MBL_FIELD_FOLDER] = "the path of a folder",
        [MBL_FIELD_FILE] = "the path of a file",
        [MBL_FIELD_PATH] = "the path of a file or folder",
        [MBL_FIELD_TEXT] = "a line of text",
        [MBL_FIELD_PLACE] = "one of ",
        [MBL_FIELD_STRINGS] = "a list of names such as [attn.to_q, attn.to_k]",
        [MBL_FIELD_COUNTS] = "a list of whole numbers such as [0, 1]",
        [MBL_FIELD_REWARDS] = "a list of rewards such as [{name: ocr}, {name: count, weight: 2}]",
        [MBL_FIELD_STAGES] = "a list of stages such as [{steps: 20, rewards: [ocr]}]",
        [MBL_FIELD_SOURCES] =
            "a list of prompt files such as [{file: ocr.txt, weight: 2}, {file: geneval.jsonl}]",
    };
    char range[160] = "";
    if (field->kind == MBL_FIELD_CHOICE)
        join_words(field->words, ", ", range, sizeof range);
    else
        mbl_config_range(field, range, sizeof range);
    snprintf(out, size, "%s%s%s%s%s", what[field->kind],
             !is_numeric(field)     ? ""
             : field->high >= LARGE ? ", "
                                    : " in ",
             range, is_numeric(field) && field->fallback[0] ? ", for instance " : "",
             is_numeric(field) ? field->fallback : "");
    return out;
}
