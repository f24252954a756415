/* Prompts that are longer than what a text encoder reads. */
#include "model/text/cut.h"

#include <string.h>

mbl_status_t mbl_cuts_find(const mbl_tokenizer_t *tokenizer, const char *encoder, size_t limit,
                           const char *const *prompts, size_t n, mbl_cuts_t *out) {
    mbl_cuts_t cuts = {.encoder = encoder, .limit = limit};
    for (size_t i = 0; i < n; i++) {
        char text[MBL_CUT_TEXT];
        size_t tokens;
        MBL_TRY(mbl_tokenizer_measure(tokenizer, prompts[i], limit, &tokens, text, sizeof text));
        if (tokens <= limit)
            continue;
        if (cuts.count < MBL_CUTS_SHOWN) {
            cuts.first[cuts.count].prompt = i;
            cuts.first[cuts.count].tokens = tokens;
            memcpy(cuts.first[cuts.count].text, text, sizeof text);
        }
        cuts.count++;
    }
    *out = cuts;
    return MBL_OK;
}
