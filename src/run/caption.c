/* Captions of sample sheets. */
#include "run/caption.h"

#include "base/mem.h"

#include <stdio.h>

#define GLUE "\xC2\xA0" /* a space where no line ends */

static size_t add_score(char *out, size_t size, const char *name, const mbl_score_t *score) {
    if (score->state == MBL_SCORE_VALID)
        return (size_t)snprintf(out, size, "%s" GLUE "%.2f", name, score->value);
    return (size_t)snprintf(out, size, "%s" GLUE "%s", name, score->state == MBL_SCORE_NA ? "N/A" : "failed");
}

char *mbl_caption(const char *prompt, const char *const *names, const mbl_score_t *scores, size_t k) {
    char text[MBL_CAPTION_REWARDS * 80] = "", more[32] = "";
    size_t used = 0, shown = k < MBL_CAPTION_REWARDS ? k : MBL_CAPTION_REWARDS;
    for (size_t i = 0; i < shown && used < sizeof text - 2; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s", i ? "  " : "");
        used += add_score(text + used, sizeof text - used, names[i], &scores[i]);
    }
    if (k > shown)
        snprintf(more, sizeof more, "  +%zu" GLUE "more", k - shown);
    return mbl_format("%s%s%s%s", prompt, k ? "\n" : "", text, more);
}
