/* Queries. */
#include "service/query.h"

#include <stdio.h>
#include <string.h>

static mbl_query_t *find(mbl_query_t *keys, size_t n, const char *key, size_t length) {
    for (size_t i = 0; i < n; i++)
        if (strlen(keys[i].key) == length && memcmp(keys[i].key, key, length) == 0)
            return &keys[i];
    return NULL;
}

static bool read_number(const char *text, size_t length, const mbl_query_t *key, uint64_t *out) {
    uint64_t value = 0;
    if (length == 0 || length > 16)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = 10 * value + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return value >= key->low && value <= key->high;
}

/* The beginning of what a client sent, for a message: letters of ASCII alone. */
static const char *shown(const char *text, size_t length, char out[41]) {
    size_t n = length < 40 ? length : 40;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] > ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
    return out;
}

bool mbl_query_read(const char *query, mbl_query_t *keys, size_t n, char fault[MBL_QUERY_FAULT]) {
    char name[41], number[41];
    while (*query) {
        size_t length = strcspn(query, "&"),
               left = length < strcspn(query, "=") ? length : strcspn(query, "=");
        const char *value = query + left + (left < length);
        size_t size = length - left - (left < length);
        mbl_query_t *key = find(keys, n, query, left);
        if (!key || key->given) {
            snprintf(fault, MBL_QUERY_FAULT, "query: %s %s; this request takes%s%s%s%s%s",
                     shown(query, left, name), key ? "stands twice" : "is unknown", n ? " " : " none",
                     n > 0 ? keys[0].key : "", n > 1 ? ", " : "", n > 1 ? keys[1].key : "",
                     n > 2 ? " and more" : "");
            return false;
        }
        if (!read_number(value, size, key, &key->value)) {
            snprintf(fault, MBL_QUERY_FAULT, "query: %s=%s; expected a whole number from %llu to %llu",
                     key->key, shown(value, size, number), (unsigned long long)key->low,
                     (unsigned long long)key->high);
            return false;
        }
        key->given = true;
        query += length + (query[length] == '&');
    }
    return true;
}
