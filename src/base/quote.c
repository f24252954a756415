/* Text for a person to copy into a shell. */
#include "base/quote.h"

#include <stdbool.h>
#include <string.h>

static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+,:=@%";

const char *mbl_quote(const char *text, char *out, size_t size) {
    size_t used = 0;
    static const char quote[] = "'\\''";
    bool plain = *text && *text != '-' && strspn(text, safe) == strlen(text);
    if (size == 0)
        return "";
    out[0] = 0;
    if (plain) {
        strncat(out, text, size - 1);
        return out;
    }
    if (size < 3)
        return out;
    out[used++] = '\'';
    for (; *text; text++) {
        size_t need = *text == '\'' ? sizeof quote - 1 : 1;
        if (used + need + 2 > size)
            break;
        memcpy(out + used, *text == '\'' ? quote : text, need);
        used += need;
    }
    out[used++] = '\'';
    out[used] = 0;
    return out;
}
