/* Nearest word by edit distance (optimal string alignment). */
#include "base/suggest.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { WORD_MAX_ = 64 };

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static int same(char a, char b) {
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

size_t mbl_edit_distance(const char *a, const char *b) {
    size_t rows[3][WORD_MAX_ + 1];
    size_t n = strnlen(a, WORD_MAX_), m = strnlen(b, WORD_MAX_);
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        const size_t *two_up = rows[(i + 1) % 3], *up = rows[(i - 1) % 3];
        size_t *row = rows[i % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t replace = up[j - 1] + !same(a[i - 1], b[j - 1]);
            row[j] = least(replace, least(up[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
                row[j] = least(row[j], two_up[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

void mbl_suggest(const char *word, const char *candidate, const char **best, size_t *distance) {
    size_t length = strnlen(word, WORD_MAX_), d = mbl_edit_distance(word, candidate);
    size_t near = length <= 3 ? 1 : length <= 6 ? 2 : 3;
    if (d <= near && (!*best || d < *distance)) {
        *best = candidate;
        *distance = d;
    }
}

const char *mbl_suggested(const char *before, const char *best, char out[MBL_SUGGESTED]) {
    out[0] = 0;
    if (best)
        snprintf(out, MBL_SUGGESTED, "; did you mean %s%.200s?", before, best);
    return out;
}

bool mbl_is_hub_name(const char *path) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t owner = strspn(path, plain), name = path[owner] == '/' ? strspn(path + owner + 1, plain) : 0;
    char folder[200];
    struct stat about;
    if (owner == 0 || name == 0 || path[0] == '.' || path[owner + 1 + name])
        return false;
    return snprintf(folder, sizeof folder, "%.*s", (int)owner, path) < (int)sizeof folder &&
           stat(folder, &about) != 0;
}
