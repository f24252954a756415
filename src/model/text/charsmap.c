/* Precompiled normalization. The units of the trie are darts-clone's: bit 8 says that a value follows, bits
 * 10..30 (shifted by 8 more with bit 9) are the offset to the children, the low byte and bit 31 the label. */
#include "model/text/charsmap.h"
#include "base/mem.h"
#include "base/unicode.h"

#include <nettle/base64.h>
#include <string.h>

enum {
    LENGTH_LIMIT = 64 << 20, /* bytes of base64 */
    CLUSTER_LIMIT = 6        /* bytes from which on a cluster is not replaced whole */
};

/* ---- reading ---- */

static mbl_status_t decode(const char *path, const char *base64, uint8_t **out, size_t *size) {
    struct base64_decode_ctx context;
    size_t length = strlen(base64), n = 0;
    uint8_t *bytes;
    if (length > LENGTH_LIMIT)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: precompiled_charsmap: %zu characters; expected at most %d", path,
                        length, LENGTH_LIMIT);
    MBL_ALLOC(bytes, BASE64_DECODE_LENGTH(length) + 1);
    base64_decode_init(&context);
    if (!base64_decode_update(&context, &n, bytes, length, base64) || !base64_decode_final(&context)) {
        mbl_free(bytes);
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: precompiled_charsmap: not base64", path);
    }
    *out = bytes;
    *size = n;
    return MBL_OK;
}

static uint32_t little(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static mbl_status_t take(mbl_charsmap_t *map, const char *path, const uint8_t *bytes, size_t size) {
    size_t trie = size >= 4 ? little(bytes) : 0;
    if (trie < 4 || trie % 4 != 0 || trie > size - 4)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: precompiled_charsmap: a trie of %zu bytes in %zu; expected less",
                        path, trie, size);
    const uint8_t *text = bytes + 4 + trie;
    size_t n_text = size - 4 - trie;
    if (n_text > 0 && text[n_text - 1] != 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: precompiled_charsmap: ends inside a text; expected a 0", path);
    if (!mbl_utf8_valid((const char *)text, n_text))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: precompiled_charsmap: a text that is not UTF-8", path);
    MBL_ALLOC(map->unit, trie / 4);
    MBL_ALLOC(map->text, n_text + 1);
    for (size_t i = 0; i < trie / 4; i++)
        map->unit[i] = little(bytes + 4 + 4 * i);
    memcpy(map->text, text, n_text);
    map->n_units = trie / 4;
    map->n_text = n_text;
    return MBL_OK;
}

mbl_status_t mbl_charsmap_read(mbl_charsmap_t *map, const char *path, const char *base64) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    MBL_TRY(decode(path, base64, &bytes, &size));
    mbl_status_t status = take(map, path, bytes, size);
    mbl_free(bytes);
    return status;
}

void mbl_charsmap_clear(mbl_charsmap_t *map) {
    mbl_free(map->unit);
    mbl_free(map->text);
    *map = (mbl_charsmap_t){0};
}

/* ---- applying ---- */

static size_t children(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & 0x200u) >> 6);
}

/* What the shortest known beginning of text stands for; NULL: none is known. A damaged trie knows nothing. */
static const char *replacement(const mbl_charsmap_t *map, const char *text, size_t size) {
    size_t at = children(map->unit[0]);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (at >= map->n_units || (map->unit[at] & 0x800000ffu) != c)
            return NULL;
        uint32_t unit = map->unit[at];
        at ^= children(unit);
        if (!(unit & 0x100u))
            continue;
        size_t value = at < map->n_units ? map->unit[at] & 0x7fffffffu : SIZE_MAX;
        return value < map->n_text ? map->text + value : NULL;
    }
    return NULL;
}

static mbl_status_t put(const mbl_charsmap_t *map, const char *text, size_t size, mbl_bytes_t *out) {
    const char *other = replacement(map, text, size);
    return other ? mbl_bytes_put(out, other, strlen(other)) : mbl_bytes_put(out, text, size);
}

static mbl_status_t put_cluster(const mbl_charsmap_t *map, const char *text, size_t size, mbl_bytes_t *out) {
    const char *whole = size < CLUSTER_LIMIT ? replacement(map, text, size) : NULL;
    if (whole)
        return mbl_bytes_put(out, whole, strlen(whole));
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t c;
        n = mbl_utf8_decode(text + i, size - i, &c);
        MBL_TRY(put(map, text + i, n, out));
    }
    return MBL_OK;
}

mbl_status_t mbl_charsmap_apply(const mbl_charsmap_t *map, const char *text, size_t size, mbl_bytes_t *out) {
    int32_t state = 0;
    uint32_t before = 0;
    size_t begin = 0;
    for (size_t at = 0, n; at < size; at += n) {
        uint32_t c;
        n = mbl_utf8_decode(text + at, size - at, &c);
        if (at > 0 && mbl_unicode_cluster_ends(before, c, &state)) {
            MBL_TRY(put_cluster(map, text + begin, at - begin, out));
            begin = at;
        }
        before = c;
    }
    return size > begin ? put_cluster(map, text + begin, size - begin, out) : MBL_OK;
}
