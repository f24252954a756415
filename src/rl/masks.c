/* Which reward parts apply to the same samples. */
#include "rl/masks.h"

#include <string.h>

enum { P = MBL_MAX_PARTS };

/* Of every pair of parts the samples that one of them alone applies to; on the diagonal |V|. */
static void compare(const uint8_t *valid, size_t parts, size_t n, double *differ) {
    for (size_t a = 0; a < parts; a++)
        for (size_t b = 0; b <= a; b++)
            for (size_t i = 0; i < n; i++)
                differ[a * parts + b] +=
                    a == b ? valid[a * n + i] != 0 : (valid[a * n + i] != 0) != (valid[b * n + i] != 0);
}

mbl_status_t mbl_masks(mbl_comm_t *comm, const uint8_t *valid, size_t parts, size_t n, size_t n_global,
                       mbl_masks_t *out) {
    double differ[P * P];
    MBL_REQUIRE(parts >= 1 && parts <= P, "masks: %zu parts; expected 1 to %d", parts, P);
    mbl_masks_t masks = {.parts = parts, .valid = valid};
    memset(differ, 0, parts * parts * sizeof *differ);
    compare(valid, parts, n, differ);
    MBL_TRY(mbl_comm_allreduce(comm, differ, parts * parts, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t a = 0; a < parts; a++) {
        double samples = differ[a * parts + a];
        size_t b = 0;
        while (b < a && differ[a * parts + b] > 0)
            b++;
        masks.of[a] = b < a ? masks.of[b] : samples > 0 ? (uint8_t)masks.count : MBL_NO_MASK;
        if (b < a || !(samples > 0))
            continue;
        masks.first[masks.count] = (uint8_t)a;
        masks.samples[masks.count] = samples;
        masks.weight[masks.count++] = (double)n_global / samples;
    }
    *out = masks;
    return MBL_OK;
}

double mbl_masks_weight(const mbl_masks_t *masks, size_t part, size_t i, size_t n) {
    if (!masks)
        return 1;
    bool in = masks->of[part] != MBL_NO_MASK && masks->valid[part * n + i];
    return in ? masks->weight[masks->of[part]] : 0;
}
