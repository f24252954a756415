#include "ops/cpu/isa.h"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 64 };

static const struct {
    const char *name;
    dnnl_cpu_isa_t onednn;
} isas[] = {
#define ENTRY(id, name, onednn) {#name, dnnl_cpu_isa_##onednn},
    MBL_CPU_ISAS(ENTRY)
#undef ENTRY
};

const char *mbl_cpu_isa_name(mbl_cpu_isa_t isa) {
    return isas[isa].name;
}

/* Asks oneDNN, which from then on takes no other limit. */
static bool allowed(dnnl_cpu_isa_t isa) {
#if defined(__x86_64__)
    return ((int)dnnl_get_effective_cpu_isa() & (int)isa) == (int)isa;
#else
    (void)isa;
    return false;
#endif
}

static mbl_cpu_isa_t most_allowed(void) {
    if (allowed(dnnl_cpu_isa_avx512_core))
        return MBL_CPU_AVX512;
#if defined(__x86_64__)
    if (allowed(dnnl_cpu_isa_avx2) && __builtin_cpu_supports("fma"))
        return MBL_CPU_AVX2;
#endif
    return MBL_CPU_PORTABLE;
}

mbl_status_t mbl_cpu_isa(mbl_cpu_isa_t *out) {
    const char *text = getenv("MARBLE_CPU_ISA");
    if (!text || !*text) {
        *out = most_allowed();
        return MBL_OK;
    }
    size_t wanted = 0;
    while (wanted < MBL_CPU_ISA_COUNT && strcmp(text, isas[wanted].name) != 0)
        wanted++;
    if (wanted == MBL_CPU_ISA_COUNT)
        return MBL_FAIL(MBL_ERR_CONFIG, "MARBLE_CPU_ISA: found \"%.*s\"; expected portable, avx2 or avx512",
                        TEXT, text);
    (void)dnnl_set_max_cpu_isa(isas[wanted].onednn); /* refused once oneDNN has been asked: see below */
    mbl_cpu_isa_t most = most_allowed();
    if ((size_t)most < wanted)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "MARBLE_CPU_ISA: found %s, which this processor lacks; expected %s or less",
                        isas[wanted].name, isas[most].name);
    MBL_REQUIRE((size_t)most == wanted, "MARBLE_CPU_ISA=%s after oneDNN was used with %s", isas[wanted].name,
                isas[most].name);
    *out = most;
    return MBL_OK;
}

bool mbl_cpu_has_bf16(void) {
    mbl_cpu_isa_t isa;
    return mbl_cpu_isa(&isa) == MBL_OK && isa == MBL_CPU_AVX512;
}

bool mbl_cpu_bf16_is_native(void) {
    return mbl_cpu_has_bf16() && allowed(dnnl_cpu_isa_avx512_core_bf16);
}

bool mbl_cpu_has_amx(void) {
    return mbl_cpu_has_bf16() && allowed(dnnl_cpu_isa_avx512_core_amx);
}

void mbl_cpu_onednn(char version[MBL_CPU_TEXT], char isa[MBL_CPU_TEXT]) {
    const dnnl_version_t *found = dnnl_version();
    const char *name = dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa()), prefix[] = "cpu_isa_";
    snprintf(version, MBL_CPU_TEXT, "%d.%d.%d", found->major, found->minor, found->patch);
    snprintf(isa, MBL_CPU_TEXT, "%s",
             strncmp(name, prefix, strlen(prefix)) == 0 ? name + strlen(prefix) : name);
}
