/* One configuration on every rank: nodes may hold different files under one name. */
#ifndef MBL_RUN_SAME_CONFIG_H
#define MBL_RUN_SAME_CONFIG_H

#include "comm/comm.h"
#include "config/config.h"

/* ERR_CONFIG where a rank has another value than rank 0, with `name` (its RUN.yaml), the key and both. Free
 * to differ are paths (what they hold is compared when it is read), texts in a reward's options, and what
 * says how a rank computes: device, threads, cuda, limits, log. Collective. */
mbl_status_t mbl_same_config(mbl_comm_t *comm, const mbl_config_t *config, const char *name);

#endif
