/* Headers and rates. */
#include "service/guard.h"

#include "base/sha256.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <nettle/memops.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

enum { HOST_MOST = 255 };

/* The host's part of "host:port" or "[v6]:port" into out; false where that is neither. */
static bool split(const char *text, char out[HOST_MOST + 1]) {
    size_t length;
    const char *rest;
    if (*text == '[') {
        const char *end = strchr(text, ']');
        if (!end)
            return false;
        length = (size_t)(end - text - 1);
        rest = end + 1;
        text++;
    } else {
        length = strcspn(text, ":");
        rest = text + length;
    }
    if (length == 0 || length > HOST_MOST ||
        (*rest && (*rest != ':' || strspn(rest + 1, "0123456789") != strlen(rest + 1) || strlen(rest) > 6)))
        return false;
    memcpy(out, text, length);
    out[length] = 0;
    return true;
}

static bool is_address(const char *host) {
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

bool mbl_guard_host(const char *host, const char *own) {
    char name[HOST_MOST + 1];
    if (!split(host, name))
        return false;
    return is_address(name) || strcasecmp(name, "localhost") == 0 || (own[0] && strcasecmp(name, own) == 0);
}

bool mbl_guard_origin(const char *origin, const char *host) {
    static const char *const schemes[] = {"http://", "https://"}; /* https: by a proxy of the same name */
    if (!origin[0])
        return true;
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(schemes[i]);
        if (strncmp(origin, schemes[i], n) == 0 && origin[n] && strcasecmp(origin + n, host) == 0)
            return true;
    }
    return false;
}

bool mbl_guard_token(const char *authorization, const char *token) {
    static const char scheme[] = "Bearer ";
    char given[MBL_SHA256_HEX], expected[MBL_SHA256_HEX];
    if (!token[0] || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return false;
    const char *value = authorization + sizeof scheme - 1;
    mbl_sha256_text(value, strlen(value), given); /* of one length, whatever came */
    mbl_sha256_text(token, strlen(token), expected);
    return nettle_memeql_sec(given, expected, sizeof given);
}

bool mbl_guard_make_token(char *out) {
    unsigned char bytes[(MBL_TOKEN - 1) / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    explicit_bzero(bytes, sizeof bytes);
    return true;
}

bool mbl_guard_take(mbl_guard_rate_t *rate, double now) {
    rate->left += (now - rate->at) * rate->rate;
    rate->left = rate->left < rate->burst ? rate->left : rate->burst;
    rate->at = now;
    if (rate->left < 1)
        return false;
    rate->left -= 1;
    return true;
}
