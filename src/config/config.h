/* The configuration of a run: run.yaml plus --set, checked, as plain structs whose fields are named like the
 * keys (config->train.lr is the key train.lr). One table (config/table.c) holds every key's default, unit,
 * range and help. */
#ifndef MBL_TRAIN_CONFIG_H
#define MBL_TRAIN_CONFIG_H

#include "base/log.h"
#include "base/status.h"
#include "model/sampler.h"
#include "reward/reward.h"
#include "rl/balance.h"
#include "rl/constraint.h"
#include "rl/noise.h"
#include "rl/alarms.h"
#include "rl/method_list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What a count may be instead of a number, in keys that say so. */
#define MBL_CONFIG_AUTO SIZE_MAX
#define MBL_CONFIG_ALL (SIZE_MAX - 1)
#define MBL_CONFIG_NONE (SIZE_MAX - 2)

typedef enum { MBL_CONFIG_GRAPHS_ON, MBL_CONFIG_GRAPHS_OFF } mbl_config_graphs_t;
typedef enum { MBL_CONFIG_DEVICE_AUTO, MBL_CONFIG_DEVICE_CPU, MBL_CONFIG_DEVICE_CUDA } mbl_config_device_t;
typedef enum {
    MBL_CONFIG_PRECISION_AUTO, /* bf16 where the device multiplies it natively, else f32: mbl_config_bf16 */
    MBL_CONFIG_PRECISION_F32,
    MBL_CONFIG_PRECISION_BF16
} mbl_config_precision_t;
typedef enum { MBL_CONFIG_SOURCE_SIGNS, MBL_CONFIG_SOURCE_FILE } mbl_config_source_t;
typedef enum { MBL_CONFIG_STD_AUTO, MBL_CONFIG_STD_GLOBAL, MBL_CONFIG_STD_GROUP } mbl_config_std_t;
typedef enum {
    MBL_CONFIG_COMMON_AUTO, /* by the method: mbl_config_common */
    MBL_CONFIG_COMMON_TOGETHER,
    MBL_CONFIG_COMMON_APART,
    MBL_CONFIG_COMMON_OFFSET
} mbl_config_common_t;
typedef enum { MBL_CONFIG_KL_APART, MBL_CONFIG_KL_COMMON } mbl_config_kl_t;
typedef enum { MBL_CONFIG_WEIGHTED_SUM, MBL_CONFIG_WEIGHTED_MEAN } mbl_config_weighted_t;
typedef enum { MBL_CONFIG_GUARD_OFF, MBL_CONFIG_GUARD_OWN_PARTS } mbl_config_guard_t;
typedef enum { MBL_CONFIG_ON_REFRESH_RAW, MBL_CONFIG_ON_REFRESH_SMOOTH } mbl_config_on_refresh_t;
typedef enum { MBL_CONFIG_OTHER_BASE_REFUSE, MBL_CONFIG_OTHER_BASE_ACCEPT } mbl_config_other_base_t;
typedef enum { MBL_CONFIG_WRITER_GATHER, MBL_CONFIG_WRITER_PARALLEL } mbl_config_writer_t;
typedef enum { MBL_CONFIG_QK_NORM_NONE, MBL_CONFIG_QK_NORM_RMS } mbl_config_qk_norm_t;

typedef enum { MBL_CONFIG_LOW_MEMORY_OFF, MBL_CONFIG_LOW_MEMORY_ON } mbl_config_low_memory_t;
typedef enum { MBL_CONFIG_OFF, MBL_CONFIG_ON } mbl_config_switch_t;
typedef enum { MBL_CONFIG_MERGE_AUTO, MBL_CONFIG_MERGE_NEVER } mbl_config_merge_t;

typedef enum { MBL_CONFIG_TENSORBOARD_OFF, MBL_CONFIG_TENSORBOARD_ON } mbl_config_tensorboard_t;

typedef struct {
    char **items;
    size_t count;
} mbl_config_strings_t;

typedef struct {
    size_t *items;
    size_t count;
} mbl_config_counts_t;

/* One of several files of training prompts. */
typedef struct {
    char *name, *file; /* file: absolute */
    double weight;
} mbl_config_prompt_source_t;

/* One of the stages of a run. */
typedef struct {
    size_t steps;
    mbl_config_strings_t rewards; /* names */
    mbl_method_t method;
    bool has_method; /* else balance.method */
    double *weights; /* [n_weights], one for each of its rewards; NULL: the rewards' own */
    size_t n_weights;
} mbl_config_stage_t;

/* Where every value came from, for messages; private. */
typedef struct mbl_config_origin mbl_config_origin_t;

typedef struct {
    uint64_t seed;
    mbl_config_device_t device;
    mbl_config_precision_t precision;
    size_t threads; /* 0: see base/cpus.h */
    struct {
        mbl_config_graphs_t graphs;
    } cuda;
    struct {
        char *path; /* absolute; "" when not given (pretrain) */
        mbl_config_low_memory_t low_memory;
        struct {
            size_t rank;
            double alpha;
            mbl_config_strings_t targets;
            char *from; /* absolute; "": none */
        } lora;
    } model;
    struct {
        mbl_config_source_t source;
        char *train, *test; /* absolute; "" unless source is file */
        struct {
            mbl_config_prompt_source_t *items; /* none: prompts.train */
            size_t count;
        } sources;
        double test_share;              /* 0: prompts.test */
        size_t train_count, test_count; /* of source: signs */
        size_t limit;                   /* of source: file; 0: all */
        size_t groups, group_size;
        size_t max_tokens; /* of T5 */
        char *cache;       /* auto, off, or an absolute folder */
        size_t device_bytes;
    } prompts;
    struct {
        size_t steps;
        mbl_solver_t solver;
        mbl_sigma_schedule_kind_t schedule;
        double shift;
        mbl_config_switch_t integer_timesteps;
        size_t height, width;             /* pixels; 0: those that the model was made for */
        size_t decode_bytes, decode_tile; /* of a vae */
        size_t micro_batch;               /* or MBL_CONFIG_AUTO */
        mbl_config_merge_t merge;
        double merge_deviation;
    } rollout;
    struct {
        size_t steps;
        double lr, beta, kl, kl_fraction, clip;
        size_t micro_batch;       /* or MBL_CONFIG_AUTO */
        size_t checkpoint_blocks; /* or MBL_CONFIG_AUTO, _ALL, _NONE */
        double timestep_fraction;
        size_t inner_epochs, updates_per_epoch;
        double grad_clip; /* 0: none */
        double weight_decay, adam_beta1, adam_beta2, adam_eps;
        struct {
            size_t flat; /* optimizer steps before the decay rises */
            double rate, hold;
        } old_decay;
        double ema;
    } train;
    struct {
        mbl_reward_spec_t *items; /* strings belong to the config */
        size_t count;
    } rewards;
    struct {
        mbl_config_stage_t *items; /* none: the whole run trains all rewards */
        size_t count;
    } stages;
    struct {
        mbl_config_std_t std;
    } advantage;
    struct {
        mbl_method_t method;
        mbl_config_common_t common;
        mbl_config_kl_t kl;
        mbl_config_weighted_t weighted;
        mbl_shrink_t shrink;
        mbl_config_guard_t guard;
        double floor, cagrad_c, rho;
        size_t refresh_every; /* optimizer steps */
        size_t warmup;        /* optimizer steps */
        mbl_config_on_refresh_t on_refresh;
        double gram_fraction;
        size_t diagnostics_every, alpha_halves; /* optimizer steps; 0: never */
    } balance;
    mbl_constraint_options_t constraint;
    mbl_alarm_limits_t alarms;
    struct {
        size_t every; /* optimizer steps; 0: only at the end */
        size_t prompts, steps;
        mbl_solver_t solver;
        uint64_t seed;
        double guidance; /* 1: none */
        char *negative;
        mbl_config_counts_t skip_layers;
        double skip_scale, skip_start, skip_stop;
    } eval;
    struct {
        size_t every; /* optimizer steps; 0: only at the end */
        struct {
            size_t last, every; /* files (0: all), optimizer steps (0: none) */
            mbl_config_strings_t best;
        } keep;
        mbl_config_other_base_t other_base;
        mbl_config_writer_t writer;
    } checkpoint;
    struct {
        double seconds, margin;   /* 0: none; before the end of a Slurm job */
        double deadline;          /* seconds of one collective; 0: none */
        size_t micro_batch_bytes; /* 0: none */
    } limits;
    struct {
        mbl_log_level_t level;
        size_t samples_every, recheck_every, advantages_every; /* optimizer steps; 0: never */
        mbl_config_tensorboard_t tensorboard;
    } log;
    struct {
        char *listen; /* as base/address.h reads it */
    } service;
    struct {
        size_t steps, batch;
        double lr;
        size_t warmup;
        double weight_decay, grad_clip, ema;
        size_t images; /* 0: endless */
        double text_share, count_share;
        double timestep_mean, timestep_std;
        size_t eval_every, checkpoint_every;
        struct {
            size_t num_layers, attention_head_dim, num_attention_heads, patch_size, sample_size, in_channels;
            size_t joint_attention_dim, pooled_projection_dim, caption_projection_dim, pos_embed_max_size;
            mbl_config_counts_t dual_attention_layers;
            mbl_config_qk_norm_t qk_norm;
            size_t text_layers, text_tokens;
        } model;
    } pretrain;
    mbl_config_origin_t *origin;
} mbl_config_t;

/* Reads `path`, applies the n_sets overrides ("train.lr=1e-4", "model.lora.targets=[a, b]",
 * "rewards.0.weight=2"; the value is YAML) and defaults, and checks types, ranges and files. Every problem is
 * logged with its file, line, key, value and remedy (at most 20); then ERR_CONFIG. *out is set only on
 * success; free with mbl_config_free. Paths are looked up from the current folder, then from the file's. */
mbl_status_t mbl_config_load(const char *path, const char *const *sets, size_t n_sets, mbl_config_t **out);
/* The same from text (`name` stands for the file in messages; its folder is where paths are looked up too).
 */
mbl_status_t mbl_config_parse(const char *text, size_t size, const char *name, const char *const *sets,
                              size_t n_sets, mbl_config_t **out);
void mbl_config_free(mbl_config_t *config);

/* What a run of `marble train` (or eval) on `ranks` ranks needs beyond the single values: a model, rewards,
 * prompts for every rank, ... Same reporting. */
mbl_status_t mbl_config_check(const mbl_config_t *config, size_t ranks);
/* The same for `marble pretrain`. */
mbl_status_t mbl_config_check_pretrain(const mbl_config_t *config, size_t ranks);
/* How many objectives the rewards make, those of a group being one; of [K] (NULL: not wanted): which one a
 * reward belongs to. */
size_t mbl_config_objectives(const mbl_config_t *config, size_t *of);
/* That every reward's type is a registered scorer; part of mbl_config_check. */
mbl_status_t mbl_config_check_rewards(const mbl_config_t *config);

/* "run.yaml:12: train.lr" for a message about a key found wrong later, into `out`; returns out. */
char *mbl_config_where(const mbl_config_t *config, const char *key, char *out, size_t size);
/* The same of reward k: "run.yaml:12: rewards.2". */
char *mbl_config_where_reward(const mbl_config_t *config, size_t k, char *out, size_t size);

/* The resolved configuration with every key and its comment, loadable again to an equal configuration, below
 * a note (NULL: none) in comments. Written under a temporary name and renamed. */
mbl_status_t mbl_config_write(const mbl_config_t *config, const char *path, const char *note);
/* One JSON object with every key, in the order of the table: equal configurations give equal text, and
 * mbl_config_parse reads it back. Free with mbl_free. */
mbl_status_t mbl_config_json(const mbl_config_t *config, char **out);

/* The keys that were set, by the file or an override, each with its value and comment, below a note (NULL:
 * none) in comments: a file to begin with. Stream errors are left to the caller. */
void mbl_config_write_set(const mbl_config_t *config, const char *note, FILE *out);

/* `marble train --help-config`: every key with type, range, unit, default and meaning. `section` (NULL: all):
 * "train", "train.old_decay", "rewards" or one key; ERR_USAGE, which names the sections, for another. */
mbl_status_t mbl_config_help(const char *section, FILE *out);

/* Whether matrix products run in bf16: what `precision` says, auto meaning where that is native
 * (mbl_ops_bf16_is_native): on a GPU, and on a CPU with AVX512-BF16 or AMX. */
bool mbl_config_bf16(const mbl_config_t *config, bool native);
/* What becomes of the common part under a method of the run, by balance.common: auto is offset where the
 * method can allow for it and no reward has a min, else together. */
mbl_common_t mbl_config_common(const mbl_config_t *config, mbl_method_t method);
/* The same of a configuration that is not at hand: its word, and whether a reward of it has a min. */
mbl_common_t mbl_config_common_by(mbl_config_common_t word, bool limited, mbl_method_t method);
/* "offset with marble, together with nash": what auto means under the methods of the run that balance
 * gradients, into `out`; false where none does or balance.common is not auto. */
bool mbl_config_common_text(const mbl_config_t *config, char *out, size_t size);
/* The key's word for a choice, as in run.yaml: mbl_config_word("rollout.solver", MBL_SOLVER_DPM2) is
 * "dpm2"; "" when there is none. */
const char *mbl_config_word(const char *key, int choice);

#endif
