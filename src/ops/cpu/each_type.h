/* Compiles the file named by MBL_TEMPLATE once for every compute type. Within it: ELEM is what memory holds,
 * REAL what is computed with (and what statistics are kept in), LOAD and STORE go between the two, NAME(f)
 * gives f_f32, f_bf16 or f_f64. MBL_TEMPLATE_REAL leaves bf16 out. No include guard: a file includes this
 * once per template. */
#include "ops/ops.h"

#include <math.h>

#define ELEM float
#define REAL float
#define LOAD(x) (x)
#define STORE(x) (x)
#define NAME(f) f##_f32
#define SQRT(x) sqrtf(x)
#include MBL_TEMPLATE
#undef ELEM
#undef LOAD
#undef STORE
#undef NAME

#ifndef MBL_TEMPLATE_REAL
#define ELEM uint16_t
#define LOAD(x) mbl_bf16_to_f32(x)
#define STORE(x) mbl_bf16_from_f32(x)
#define NAME(f) f##_bf16
#include MBL_TEMPLATE
#undef ELEM
#undef LOAD
#undef STORE
#undef NAME
#endif
#undef REAL
#undef SQRT

#define ELEM double
#define REAL double
#define LOAD(x) (x)
#define STORE(x) (x)
#define NAME(f) f##_f64
#define SQRT(x) sqrt(x)
#include MBL_TEMPLATE
#undef ELEM
#undef REAL
#undef LOAD
#undef STORE
#undef NAME
#undef SQRT
#undef MBL_TEMPLATE
#undef MBL_TEMPLATE_REAL

#ifndef MBL_OPS_CPU_EACH_TYPE_H
#define MBL_OPS_CPU_EACH_TYPE_H

/* Calls f_f32, f_bf16 or f_f64; the wrappers let nothing else through. */
#define MBL_BY_TYPE(type, f, ...)                                                                            \
    ((type) == MBL_F32    ? f##_f32(__VA_ARGS__)                                                             \
     : (type) == MBL_BF16 ? f##_bf16(__VA_ARGS__)                                                            \
                          : f##_f64(__VA_ARGS__))

/* The same without bf16. */
#define MBL_BY_REAL(type, f, ...) ((type) == MBL_F32 ? f##_f32(__VA_ARGS__) : f##_f64(__VA_ARGS__))

/* Defines the slot of an op whose type is that of operand `operand` and whose body cannot fail. */
#define MBL_CPU_SLOT(op, operand)                                                                            \
    mbl_status_t mbl_cpu_##op(mbl_ops_t *ops, const mbl_##op##_args_t *args) {                               \
        MBL_BY_TYPE(args->operand->dtype, op, ops, args);                                                    \
        return MBL_OK;                                                                                       \
    }

#endif
