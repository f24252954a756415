/* What a run is made by and with: the first lines of log.txt, comments of run.yaml, attributes of
 * checkpoints. */
#ifndef MBL_RUN_IDENTITY_H
#define MBL_RUN_IDENTITY_H

#include "run/engine.h"

/* "marble 0.1.0 (commit 4c24671b9b22) on HOST, 2 ranks: marble train run.yaml", the command of this process
 * as a shell would take it. Free with mbl_free. Local. */
mbl_status_t mbl_identity_program(const mbl_comm_t *comm, char **out);
/* "cpu, bf16, 1 thread a rank; MODEL (digest 0123456789ab), 2412345 weights, 98304 of adapters trained". Free
 * with mbl_free. Local. */
mbl_status_t mbl_identity_model(const mbl_engine_t *engine, size_t trained, char **out);

#endif
