/* Which instructions products, convolutions and the loops of isa_ops.h use, own ones and oneDNN's alike: the
 * most that this processor has, unless the environment says less. */
#ifndef MBL_OPS_CPU_ISA_H
#define MBL_OPS_CPU_ISA_H

#include "base/status.h"

#include <stdbool.h>

/* name, as MARBLE_CPU_ISA has it; the most of oneDNN's that it stands for. Each includes those before it. */
#define MBL_CPU_ISAS(X)                                                                                      \
    X(PORTABLE, portable, sse41)                                                                             \
    X(AVX2, avx2, avx2)                                                                                      \
    X(AVX512, avx512, avx512_core_bf16)

typedef enum {
#define MBL_CPU_ISA_ENUM(id, name, onednn) MBL_CPU_##id,
    MBL_CPU_ISAS(MBL_CPU_ISA_ENUM)
#undef MBL_CPU_ISA_ENUM
        MBL_CPU_ISA_COUNT
} mbl_cpu_isa_t;

const char *mbl_cpu_isa_name(mbl_cpu_isa_t isa);

/* What products run with here: what MARBLE_CPU_ISA names (avx512 leaves out AMX), or else the most that this
 * processor has within oneDNN's own ONEDNN_MAX_CPU_ISA; the first call holds oneDNN to it, so it has to come
 * before any other use of oneDNN. Errors: ERR_CONFIG for an unknown name, ERR_UNSUPPORTED for one that this
 * processor lacks. */
mbl_status_t mbl_cpu_isa(mbl_cpu_isa_t *out);

/* Whether oneDNN multiplies bf16 (AVX-512; else own products do, in f32), whether the processor has
 * instructions for that, and whether those are AMX's. False after an error of mbl_cpu_isa. */
bool mbl_cpu_has_bf16(void);
bool mbl_cpu_bf16_is_native(void);
bool mbl_cpu_has_amx(void);

/* oneDNN's version, and what it calls the instructions that it uses. */
enum { MBL_CPU_TEXT = 64 };
void mbl_cpu_onednn(char version[MBL_CPU_TEXT], char isa[MBL_CPU_TEXT]);

#endif
