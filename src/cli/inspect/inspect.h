/* The halves of `marble inspect`, one for each kind of thing that has a path. */
#ifndef MBL_CLI_INSPECT_H
#define MBL_CLI_INSPECT_H

#include "io/checkpoint.h"

#include <jansson.h>
#include <stdbool.h>

/* A checkpoint, every digest in it verified: attributes and datasets to stdout, as text or as one JSON
 * object; or, with `attribute`, the value of that attribute alone. */
mbl_status_t mbl_inspect_checkpoint(const char *path, const char *attribute, bool json);

/* Part of it: alpha by reward, as the steps up to the checkpoint's used it by the metrics.jsonl of its run,
 * and averaged as it goes on with. Nothing for checkpoints without rewards, or of methods that have no alpha.
 * As JSON: root.alpha, {"checkpoint": {reward: x}, "history": [{"step": n, "alpha": {reward: x}, "alpha_ema":
 * {reward: x}}]}. */
mbl_status_t mbl_inspect_alpha(mbl_ckpt_t *ckpt, const char *path);
mbl_status_t mbl_inspect_alpha_json(mbl_ckpt_t *ckpt, const char *path, json_t *root);

/* What two checkpoints differ in: attributes (the configuration key by key) and datasets. */
mbl_status_t mbl_inspect_diff(const char *a, const char *b, bool json);

/* The folder of a run: its state, step, checkpoints and rewards before and now; as JSON the last line of
 * metrics.jsonl, the first and the last of eval.jsonl besides. */
mbl_status_t mbl_inspect_run(const char *path, bool json);

/* A model folder, one part of it, or a safetensors file or index: configuration, digest, parameters and
 * tensors. */
mbl_status_t mbl_inspect_model(const char *path, bool json);

/* Which prompts of a file the text encoders of a model cut. */
mbl_status_t mbl_inspect_prompts(const char *folder, const char *path, bool json);

#endif
