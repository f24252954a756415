/* The `check` backend: another host backend slot by slot, with every operand watched. Before a call outputs
 * are filled with a NaN of a pattern no computation makes ("poison"); after it, none may be left, and no
 * input may have changed. An input that holds poison before the call is a stale read. Each is ERR_INTERNAL
 * and names the operation and the operand. */
#ifndef MBL_OPS_CHECK_H
#define MBL_OPS_CHECK_H

#include "ops/ops.h"

/* Like mbl_ops_open("check", ...), round a given table instead of cpu's; ERR_UNSUPPORTED unless its tensors
 * lie on the host. The table must outlive the handle. */
mbl_status_t mbl_check_open(const mbl_ops_table_t *inner, int threads, mbl_ops_t **out);

/* Fills a tensor of f32, bf16 or f64 with poison: its content is dead until something writes it. */
void mbl_check_poison(const mbl_tensor_t *t);

#endif
