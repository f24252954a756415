/* The answers of the API by the files that make them. */
#ifndef MBL_SERVICE_API_INTERNAL_H
#define MBL_SERVICE_API_INTERNAL_H

#include "service/api.h"
#include "service/query.h"

/* ---- api_status.c ---- */

mbl_status_t mbl_api_get_runs(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
mbl_status_t mbl_api_get_status(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
mbl_status_t mbl_api_get_config(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
mbl_status_t mbl_api_get_alarms(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
mbl_status_t mbl_api_get_scorers(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
mbl_status_t mbl_api_get_log(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
/* "running" and so on. */
const char *mbl_api_state(const mbl_api_t *api, size_t run);

/* ---- api_images.c ---- */

mbl_status_t mbl_api_get_samples(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
mbl_status_t mbl_api_get_rollout(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
/* /api/samples/ID.png, /api/samples/ID, /api/rollout/I. */
mbl_status_t mbl_api_get_image(mbl_api_t *api, size_t run, const char *path, mbl_answer_t *out);

/* ---- prometheus.c ---- */

mbl_status_t mbl_api_get_prometheus(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);

#endif
