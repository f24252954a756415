/* A model's folder as it was published: what of it belongs to the model, and what else lies there. */
#ifndef MBL_MODEL_FOLDER_H
#define MBL_MODEL_FOLDER_H

#include "base/status.h"

#include <jansson.h>

/* What lies in `folder` that model_index.json (`index`) does not name, though it may hold weights: folders,
 * and files such as single-file checkpoints. A JSON array of names in their order, folders with a slash.
 * Nothing there is read. Free with json_decref. */
mbl_status_t mbl_folder_extras(const char *folder, const json_t *index, json_t **out);
/* Logs them, once for a folder's opening. */
mbl_status_t mbl_folder_log_extras(const char *folder, const json_t *index);

#endif
