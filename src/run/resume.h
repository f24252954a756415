/* What may differ between a run's configuration and that of the checkpoint it goes on from. */
#ifndef MBL_TRAIN_RESUME_H
#define MBL_TRAIN_RESUME_H

#include "config/config.h"

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

/* The same of balance.common, whose default was together once: that is kept where nothing sets the key and
 * the method would go by another now, and is what a configuration without the key means. */
mbl_config_common_t mbl_resume_common(const char *old);
bool mbl_resume_keeps_common(const mbl_config_t *config, mbl_config_common_t made);

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
