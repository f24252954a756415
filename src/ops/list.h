/* The backends of this build, in the order in which "auto" tries them. */
#ifndef MBL_OPS_LIST_H
#define MBL_OPS_LIST_H

#include "ops/ops.h"

/* name: the table is mbl_ops_<name> */
#define MBL_OPS_BACKENDS(X) X(cuda) X(cpu) X(check) X(fake)

#define MBL_OPS_BACKEND_DECLARE(name) extern const mbl_ops_table_t mbl_ops_##name;
MBL_OPS_BACKENDS(MBL_OPS_BACKEND_DECLARE)
#undef MBL_OPS_BACKEND_DECLARE

#endif
