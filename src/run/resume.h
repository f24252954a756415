/* What may differ between a run's configuration and that of the checkpoint it goes on from. */
#ifndef MBL_TRAIN_RESUME_H
#define MBL_TRAIN_RESUME_H

#include "config/config.h"
#include "rl/balance.h"

/* `old` is the checkpoint's configuration as JSON. Changes that a run can take (learning rate, floors, steps,
 * logging, ...) are logged, one line each; those that the state does not survive (seed, adapter layout,
 * rewards by name, the order of prompts) are refused by key with both values: ERR_CONFIG. Keys that `old`
 * does not know are new and pass. */
mbl_status_t mbl_resume_check(const mbl_config_t *config, const char *path, const char *old);

/* The schedule of sigmas that the run of a checkpoint drew by, `old` being its configuration as JSON: linear
 * where that does not say. */
mbl_sigma_schedule_kind_t mbl_resume_schedule(const char *old);
/* Whether a run that goes on keeps `made`, its checkpoint's schedule, against its configuration's: where that
 * has another only because nothing sets it. Logged. */
bool mbl_resume_keeps_schedule(const mbl_config_t *config, mbl_sigma_schedule_kind_t made);

/* How the run of a checkpoint balanced its last step. */
typedef struct {
    mbl_config_common_t word; /* balance.common of its configuration; together where that has no such key */
    mbl_common_t common;      /* what that means with its method and rewards */
    mbl_method_t method;      /* of its stage */
    double weights[MBL_MAX_REWARDS]; /* of the rewards, its stage's where it has some; NAN: not known */
    double min[MBL_MAX_REWARDS];     /* NAN: none */
    double kl, floor, cagrad_c;      /* kl: in every reward's gradient; NAN: not known */
    int shrink, guard;               /* the config's */
} mbl_resume_balance_t;

/* From the checkpoint's configuration as JSON, at its step. */
mbl_resume_balance_t mbl_resume_balance(const char *old, uint64_t step);
/* As mbl_resume_keeps_schedule, of balance.common, whose default was together once: that is kept where
 * nothing sets the key and the method would go by another now. */
bool mbl_resume_keeps_common(const mbl_config_t *config, const mbl_resume_balance_t *made);
/* Whether the step that comes next (counted from 0, not the first of a stage) balances other gradients, or by
 * other weights or keys, than the checkpoint's average of alpha and cached lengths are of. Logged.
 * ERR_INTERNAL as mbl_stage_at. */
mbl_status_t mbl_resume_rebalances(const mbl_config_t *config, const mbl_resume_balance_t *made,
                                   uint64_t step, bool *out);

/* The configuration that a checkpoint of marble train was made with, and its step, to open its adapters on
 * this machine: device cpu and no files of prompts; `model` (NULL: its own) is the base model's folder.
 * ERR_CONFIG for another kind of checkpoint. Free *out with mbl_config_free. Local. */
mbl_status_t mbl_resume_config(const char *path, const char *model, mbl_config_t **out, size_t *step);

/* That `config`, read from `name`, has the adapter of `made`, the configuration of the checkpoint `path`:
 * ERR_CONFIG names each key of model.lora with both values. */
mbl_status_t mbl_resume_same_adapter(const mbl_config_t *config, const char *name, const mbl_config_t *made,
                                     const char *path);
/* The same as a warning with the first key that differs, where the checkpoint's adapter is used anyway. */
mbl_status_t mbl_resume_log_adapter(const mbl_config_t *config, const mbl_config_t *made, const char *path);

#endif
