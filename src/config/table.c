/* Every key of run.yaml: default, range, unit, meaning. Parsing, --set, --help-config, the resolved run.yaml
 * and all messages follow from this table. */
#include "config/table.h"

#include <stdio.h>
#include <string.h>

#define LARGE MBL_FIELD_LARGE
#define FIELD(key, kind, fallback, low, high, ends, unit, words, help)                                       \
    { #key, kind, offsetof(mbl_config_t, key), fallback, low, high, ends, unit, words, help, NULL }
#define COUNT(key, fallback, low, high, unit, help)                                                          \
    FIELD(key, MBL_FIELD_COUNT, fallback, low, high, MBL_FIELD_CLOSED, unit, NULL, help)
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
static const char *const merge_words[] = {"auto", "never", NULL};
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
/* In the order of mbl_common_t. */
static const char *const common_words[] = {"together", "apart", "offset", NULL};
/* In the order of mbl_config_kl_t. */
static const char *const kl_words[] = {"apart", "common", NULL};
/* In the order of mbl_config_weighted_t. */
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
static const char *const norm_words[] = {"none", "rms_norm", NULL};
const char *const mbl_config_on_failure_words[] = {"skip", "stop", NULL};

static const mbl_field_t fields[] = {
    COUNT(seed, "42", 0, LARGE, NULL, "every random number follows from it"),
    CHOICE(device, "auto", device_words, "where the model runs"),
    CHOICE(precision, "auto", precision_words,
           "of matrix products (auto: bf16 on GPUs and on CPUs that have it); loss, Gram matrix and moments "
           "stay f32/f64"),
    COUNT(threads, "0", 0, 4096, "threads",
          "per rank; 0: OMP_NUM_THREADS, or the CPUs a rank may use, shared with ranks of the same mask"),
    CHOICE(
        cuda.graphs, "on", graphs_words,
        "model passes that come again run as one CUDA graph, with the same results; off: launch by launch"),

    OTHER(model.path, FOLDER, "", 0, 0, NULL, "base model in the diffusers layout"),
    COUNT(model.lora.rank, "16", 1, 1024, NULL, "rank of the adapters"),
    NUMBER(model.lora.alpha, "32", 0, 1e6, ABOVE, "adapters are scaled by alpha / rank"),
    OTHER(model.lora.targets, STRINGS,
          "attn.to_q, attn.to_k, attn.to_v, attn.to_out.0, attn.add_q_proj, attn.add_k_proj, "
          "attn.add_v_proj, attn.to_add_out",
          1, MBL_LORA_MAX_TARGETS, NULL, "linear layers that get an adapter, by the end of their names"),

    CHOICE(prompts.source, "signs", source_words,
           "signs: sentences of the built-in world; file: train and test"),
    OTHER(prompts.train, FILE, "", 0, 0, NULL,
          "training prompts, .txt (one a line) or .jsonl; for source: file"),
    OTHER(prompts.test, FILE, "", 0, 0, NULL, "held-out prompts; for source: file"),
    COUNT(prompts.train_count, "1000", 1, 1e6, "sentences", "training sentences drawn; for source: signs"),
    COUNT(prompts.test_count, "192", 1, 1e6, "sentences", "held-out sentences drawn; for source: signs"),
    COUNT(prompts.limit, "0", 0, 1e9, "prompts",
          "taken from the beginning of each file; 0: all; for source: file"),
    COUNT(prompts.groups, "24", 1, 65536, "prompts", "per epoch, over all ranks"),
    COUNT(prompts.group_size, "12", 2, 4096, "images", "per prompt; advantages compare them"),

    COUNT(rollout.steps, "10", 1, MBL_SAMPLER_MAX_STEPS, "sampling steps", "per image"),
    CHOICE(rollout.solver, "dpm2", solver_words, "sampler of the rollout"),
    NUMBER(rollout.shift, "3.0", 0, 100, ABOVE, "of the sigma schedule, s' = shift s / (1 + (shift - 1) s)"),
    COUNT(rollout.micro_batch, "48", 1, 65536, "images", "sampled at once on a rank"),
    CHOICE(rollout.merge, "auto", merge_words,
           "auto: with the rollout policy merged into the weights in epochs where that moves the velocities "
           "little"),
    NUMBER(rollout.merge_deviation, "1.0e-3", 0, 1, CLOSED,
           "most |v_merged - v| / |v| with which a rollout runs merged"),

    COUNT(train.steps, "60", 1, 1e9, "optimizer steps", "length of the run"),
    NUMBER(train.lr, "3.0e-4", 0, 1, ABOVE, "learning rate of AdamW"),
    NUMBER(train.beta, "0.1", 0, 100, ABOVE, "mixing strength of v+ and v-"),
    NUMBER(train.kl, "1.0e-4", 0, 100, CLOSED, "weight of |v - v_ref|^2; 0: none"),
    NUMBER(train.kl_fraction, "1.0", 0, 1, ABOVE,
           "of a step's rows that the KL term is taken of, drawn anew for every step, each standing for as "
           "many"),
    NUMBER(train.clip, "5", 0, 1000, ABOVE, "advantages are clamped to +-clip"),
    COUNT(train.micro_batch, "48", 1, 65536, "images", "trained on at once on a rank"),
    NUMBER(train.timestep_fraction, "0.99", 0, 1, ABOVE, "of the rollout's timesteps trained on, per image"),
    COUNT(train.inner_epochs, "1", 1, 100, "passes", "over the images of an epoch"),
    COUNT(train.updates_per_epoch, "1", 1, 4096, "optimizer steps", "into which a pass is divided"),
    NUMBER(train.grad_clip, "1.0", 0, 1e6, CLOSED, "largest global norm of the direction; 0: none"),
    NUMBER(train.weight_decay, "1.0e-4", 0, 10, CLOSED, "of AdamW"),
    NUMBER(train.adam_beta1, "0.9", 0, 1, BELOW, "decay of the first moment"),
    NUMBER(train.adam_beta2, "0.999", 0, 1, BELOW, "decay of the second moment"),
    NUMBER(train.adam_eps, "1.0e-8", 0, 1, ABOVE, "added to the root of the second moment"),
    COUNT(train.old_decay.flat, "0", 0, 1e9, "optimizer steps",
          "old <- h old + (1 - h) current with h = min(max(step - flat, 0) rate, hold)"),
    NUMBER(train.old_decay.rate, "0.001", 0, 1, CLOSED, "growth of h per optimizer step"),
    NUMBER(train.old_decay.hold, "0.5", 0, 1, CLOSED, "largest h"),
    NUMBER(train.ema, "0.9", 0, 1, BELOW, "largest decay of the weight average that is evaluated; 0: none"),

    OTHER(rewards, REWARDS, "", 1, MBL_MAX_REWARDS, NULL,
          "what to improve: a list of {name, type, weight, min, group, on_failure, options}; rewards of a "
          "group "
          "share one objective, the mean of their gradients"),

    OTHER(stages, STAGES, "", 1, 1000, NULL,
          "rewards one set after another: a list of {steps, rewards: [names], method, weights}, steps adding "
          "up "
          "to train.steps; the other rewards are scored only"),

    CHOICE(
        advantage.std, "auto", std_words,
        "scores are divided by the deviation over the step or the group (auto: with gdpo the group, as its "
        "paper does, else the step)"),

    {"balance.method", MBL_FIELD_CHOICE, offsetof(mbl_config_t, balance.method), "marble", 0, 0, 0, NULL,
     method_words, "how the gradients of the rewards become one direction", method_help},
    CHOICE(balance.common, "together", common_words,
           "the part that gradients share: balanced with each, or added once (offset: and allowed for)"),
    CHOICE(balance.kl, "apart", kl_words,
           "the KL term: added once after balancing, with its own weight, or in every reward's gradient, "
           "which spares a backward pass where a step solves"),
    CHOICE(balance.weighted, "sum", weighted_words,
           "of method weighted_sum: of an image's scores the weighted sum, or their weighted mean over the "
           "rewards that apply to it"),
    CHOICE(balance.shrink, "off", shrink_words,
           "a solve's alpha goes towards equal shares, or their average, by as much as two halves of its "
           "prompts disagree on it"),
    NUMBER(balance.floor, "0.0", 0, 1, BELOW,
           "least alpha of an objective, for marble; objectives x floor may not exceed 1"),
    NUMBER(balance.cagrad_c, "0.5", 0, 1, BELOW,
           "of method cagrad: radius around the mean gradient, of its length"),
    NUMBER(balance.rho, "0.7", 0, 1, BELOW, "smoothing of the averaged alpha: rho old + (1 - rho) new"),
    COUNT(
        balance.refresh_every, "1", 1, 1e9, "optimizer steps",
        "between solves, 10 with marble_reference; steps in between take one backward pass with the averaged "
        "alpha"),
    COUNT(balance.warmup, "0", 0, 1e9, "optimizer steps",
          "of equal weights before the first solve; their weights do not enter the averaged alpha"),
    CHOICE(balance.on_refresh, "raw", refresh_words,
           "a step that solves uses the solution itself or the averaged alpha"),
    NUMBER(balance.gram_fraction, "1.0", 0, 1, ABOVE,
           "of a step's rows that the solve sees; the rest take one backward pass with its weights"),
    COUNT(balance.diagnostics_every, "10", 0, 1e9, "optimizer steps",
          "between steps that form all gradients for cosines though the method does not need them; 0: never"),
    COUNT(balance.alpha_halves, "0", 0, 1e9, "optimizer steps",
          "between solves that are made from two disjoint halves of their rows too, to see how far alpha is "
          "noise; 0: never"),

    NUMBER(constraint.penalty, "10", 0, 1e6, CLOSED,
           "pressure of a reward below its min, in unit gradients per deviation of its scores"),
    NUMBER(constraint.rate, "0.5", 0, 1e6, CLOSED, "growth of the multiplier per epoch, in the same unit"),
    NUMBER(constraint.smooth, "0.5", 0, 1, BELOW, "of the measured mean: smooth old + (1 - smooth) new"),
    NUMBER(constraint.most, "10", 0, 1e6, ABOVE, "largest multiplier and pressure, in unit gradients"),

    CHOICE(alarms.on_alarm, "warn", alarm_words,
           "a line in the log, or also the end of the run, with a checkpoint and exit code 1"),
    COUNT(alarms.patience, "10", 1, 1e9, "optimizer steps",
          "in a row that no_variance, x0_norm_drift, alpha_collapse, no_score and reward_collapse have to "
          "last"),
    COUNT(alarms.old_equals_new, "3", 0, 1e9, "optimizer steps",
          "in a row after which the trained adapter equals the old one to the bit; 0: off"),
    NUMBER(alarms.old_drift, "0.5", 0, 1e6, CLOSED, "most |current - old| / |current|; 0: off"),
    NUMBER(alarms.no_variance, "0.95", 0, 1, CLOSED,
           "most share of a reward's groups whose scores are all equal; 1: off"),
    NUMBER(alarms.x0_norm_drift, "0.25", 0, 1e6, CLOSED,
           "most change of the images' root mean square since the first steps, relative; 0: off"),
    NUMBER(alarms.alpha_collapse, "0.98", 0, 1, CLOSED, "most alpha of one reward of several; 1: off"),
    COUNT(alarms.alpha_stale, "100", 0, 1e9, "optimizer steps", "most since alpha was solved for; 0: off"),
    COUNT(alarms.non_finite, "10", 0, 1e9, "optimizer steps",
          "in a row with a loss or gradient that is not finite, each left out, that end the run; 0: off"),
    COUNT(alarms.replica_mismatch, "10", 0, 1e9, "optimizer steps",
          "between comparisons of the ranks' adapters; 0: never"),
    NUMBER(alarms.scorer_failed, "0.01", 0, 1, CLOSED, "most share of a reward's scores that failed; 1: off"),
    NUMBER(alarms.scorer_range, "0.0", 0, 1, CLOSED,
           "most share of a reward's scores outside the range of its scorer; 1: off"),

    CHOICE(alarms.no_score, "on", alarm_switch_words, "a reward that is trained has no score of any image"),
    NUMBER(alarms.reward_collapse, "1.0", 0, 1e6, CLOSED,
           "most that a reward's mean may lie below the first step's, in deviations of its scores; 0: off"),

    COUNT(eval.every, "20", 0, 1e9, "optimizer steps", "between evaluations; 0: only at the end"),
    COUNT(eval.prompts, "192", 1, 1e6, "images",
          "one per held-out prompt, then round again with other noise"),
    COUNT(eval.steps, "16", 1, MBL_SAMPLER_MAX_STEPS, "sampling steps", "per image"),
    CHOICE(eval.solver, "euler", solver_words, "sampler of the evaluation"),
    COUNT(eval.seed, "1234", 0, LARGE, NULL, "of the starting noise, the same at every evaluation"),

    COUNT(checkpoint.every, "20", 0, 1e9, "optimizer steps", "between checkpoints; 0: only at the end"),
    COUNT(checkpoint.keep.last, "3", 0, 1e6, "files",
          "newest checkpoints kept; 0: all. keep: 3 says the same"),
    COUNT(checkpoint.keep.every, "0", 0, 1e9, "optimizer steps",
          "checkpoints of these steps are kept for good; 0: none"),
    OTHER(checkpoint.keep.best, STRINGS, "", 0, MBL_MAX_REWARDS, NULL,
          "rewards; the checkpoint with the best mean of each in eval.jsonl is kept"),
    CHOICE(checkpoint.other_base, "refuse", other_base_words,
           "a checkpoint of another base model, by the digest of its tensors"),
    CHOICE(
        checkpoint.writer, "gather", writer_words,
        "gather: rank 0 writes everything; parallel: every rank its share of the moments, through parallel "
        "HDF5, into the same file"),

    OTHER(limits.seconds, SECONDS, "0", 0, 1e9, "seconds", "then checkpoint and exit 75; 0: no limit"),
    OTHER(limits.margin, SECONDS, "60", 0, 1e6, "seconds",
          "the same that long before SLURM_JOB_END_TIME, where Slurm sets it"),
    OTHER(limits.deadline, SECONDS, "1800", 0, 1e6, "seconds",
          "that a rank waits for the others in one message before it ends the job; 0: for ever"),
    OTHER(limits.micro_batch_bytes, BYTES, "0", 0, LARGE, "bytes",
          "of the activations of images that pass through the model at once, which are cut to fit; 0: no "
          "limit"),

    CHOICE(log.level, "info", level_words,
           "least level that is printed; what log.txt begins with stands there at any"),
    COUNT(log.samples_every, "20", 0, 1e9, "optimizer steps", "between sheets of samples; 0: never"),
    COUNT(log.advantages_every, "0", 0, 1e9, "optimizer steps",
          "between lines of advantages.jsonl, the advantages of every image of a step; 0: never"),

    COUNT(pretrain.steps, "1000", 1, 1e9, "optimizer steps", "length of the run"),
    COUNT(pretrain.batch, "128", 1, 1e6, "images", "per step, over all ranks"),
    NUMBER(pretrain.lr, "2.0e-3", 0, 1, ABOVE, "learning rate of AdamW after the warm-up"),
    COUNT(pretrain.warmup, "100", 0, 1e9, "optimizer steps", "over which the learning rate rises"),
    NUMBER(pretrain.weight_decay, "0.01", 0, 10, CLOSED, "of AdamW"),
    NUMBER(pretrain.grad_clip, "1.0", 0, 1e6, CLOSED, "largest global norm of the gradient; 0: none"),
    NUMBER(pretrain.ema, "0.999", 0, 1, BELOW, "largest decay of the weight average that is saved; 0: none"),
    COUNT(pretrain.pictures, "0", 0, 1e9, "images", "a fixed set of that many; 0: fresh ones without end"),
    NUMBER(pretrain.text_share, "0.5", 0, 1, CLOSED, "of the images that show a text"),
    NUMBER(pretrain.count_share, "0.25", 0, 1, CLOSED,
           "of the images that show shapes to count; the rest are horizons"),
    NUMBER(pretrain.timestep_mean, "0.0", -10, 10, CLOSED, "t = sigmoid(mean + std n)"),
    NUMBER(pretrain.timestep_std, "1.0", 0, 10, ABOVE, "of the same"),
    COUNT(pretrain.eval_every, "0", 0, 1e9, "optimizer steps", "between evaluations; 0: only at the end"),
    COUNT(pretrain.checkpoint_every, "0", 0, 1e9, "optimizer steps",
          "between checkpoints; 0: only at the end"),
    COUNT(pretrain.model.num_layers, "4", 1, MBL_DIT_MAX_BLOCKS, NULL, "transformer blocks"),
    COUNT(pretrain.model.attention_head_dim, "32", 2, 1024, NULL, "width of a head"),
    COUNT(pretrain.model.num_attention_heads, "4", 1, 256, NULL, "width = heads x head width"),
    COUNT(pretrain.model.patch_size, "4", 1, 64, "pixels", "side of a patch"),
    COUNT(pretrain.model.sample_size, "32", 1, 4096, "pixels", "side of an image: 32, of the signs world"),
    COUNT(pretrain.model.in_channels, "3", 1, 256, NULL, "channels of an image: 3"),
    COUNT(pretrain.model.joint_attention_dim, "128", 1, 65536, NULL, "width of the text tokens"),
    COUNT(pretrain.model.pooled_projection_dim, "128", 1, 65536, NULL, "width of the pooled text"),
    COUNT(pretrain.model.caption_projection_dim, "128", 1, 65536, NULL, "the model's width again"),
    COUNT(pretrain.model.pos_embed_max_size, "8", 1, 4096, "patches", "largest side the positions cover"),
    OTHER(pretrain.model.dual_attention_layers, COUNTS, "", 0, MBL_DIT_MAX_BLOCKS - 1, NULL,
          "blocks with a second attention"),
    CHOICE(pretrain.model.qk_norm, "rms_norm", norm_words, "norm of queries and keys"),
    COUNT(pretrain.model.text_layers, "2", 1, 256, NULL, "blocks of the text encoder"),
    COUNT(pretrain.model.text_tokens, "24", 4, 512, "tokens", "longest sentence"),
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static const struct {
    const char *path, *help;
} sections[] = {{"cuda", "for device: cuda"},
                {"model", "what is fine-tuned"},
                {"model.lora", "the adapters"},
                {"prompts", "what is drawn"},
                {"rollout", "how the rollout policy draws"},
                {"train", "loss and optimizer"},
                {"train.old_decay", "how the rollout policy follows"},
                {"advantage", "from scores to advantages"},
                {"balance", "from K gradients to one direction"},
                {"constraint", "how rewards with a min are kept at or above it"},
                {"alarms", "what is told when training goes wrong silently"},
                {"eval", "on held-out prompts"},
                {"checkpoint", "for stop and go"},
                {"checkpoint.keep", "which stay"},
                {"limits", "time and memory"},
                {"log", "what is told"},
                {"pretrain", "used by `marble pretrain` only"},
                {"pretrain.model", "a fresh model, in the words of diffusers' config.json"}};

static const char *const unsupported[] = {
    "balance.weights", "rollout.solver=sde", "eval.solver=sde", "rollout.sde",     "rewards.max",
    "rewards.url",     "rewards.deadline",   "rewards.retries", "rewards.pattern", "limits.device_bytes",
    "service",         "prompts.stratify",   "prompts.quoted"};

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
    if (!is_numeric(field))
        return out;
    if (field->high >= LARGE)
        snprintf(out, size, "at least %.15g", field->low);
    else
        snprintf(out, size, "%c%.15g, %.15g%c", field->ends & MBL_FIELD_ABOVE ? '(' : '[', field->low,
                 field->high, field->ends & MBL_FIELD_BELOW ? ')' : ']');
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
        [MBL_FIELD_STRINGS] = "a list of names such as [attn.to_q, attn.to_k]",
        [MBL_FIELD_COUNTS] = "a list of whole numbers such as [0, 1]",
        [MBL_FIELD_REWARDS] = "a list of rewards such as [{name: ocr}, {name: count, weight: 2}]",
        [MBL_FIELD_STAGES] = "a list of stages such as [{steps: 20, rewards: [ocr]}]",
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
