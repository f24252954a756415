/* Layer norms on the CPU, with and without modulation, and fused with the gated residual before them. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/isa_ops.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vector.h"

/* Rows taken at once: their sums, means and deviations, and what they share, fit into 16 registers. */
enum { ROWS = 4 };

#define MBL_TEMPLATE "ops/cpu/norm.inc"
#include "ops/cpu/each_type.h"

MBL_ISA_SLOT(layer_norm, x)
MBL_ISA_SLOT(layer_norm_bwd, x)
MBL_ISA_SLOT(layer_norm_affine, x)
MBL_ISA_SLOT(gate_norm, x)
