/* Addresses. */
#include "base/address.h"

#include <stdlib.h>
#include <string.h>

/* HOST:PORT or [V6]:PORT. */
static bool read_tcp(const char *text, mbl_address_t *out) {
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    char *end;
    if (length == 0 || colon[1] < '0' || colon[1] > '9')
        return false;
    unsigned long number = strtoul(colon + 1, &end, 10);
    bool v6 = text[0] == '[' && text[length - 1] == ']' && length > 2;
    if (*end || number > 65535 || (!v6 && (text[0] == '[' || memchr(text, ':', length))))
        return false;
    length -= v6 ? 2 : 0;
    if (length >= sizeof out->host || strcspn(text + v6, " \t/@") < length)
        return false;
    memcpy(out->host, text + v6, length);
    out->host[length] = 0;
    out->port = (unsigned short)number;
    out->kind = MBL_ADDRESS_TCP;
    return true;
}

bool mbl_address_read(const char *text, mbl_address_t *out) {
    static const char prefix[] = "unix:";
    size_t length = strlen(text), n = sizeof prefix - 1;
    memset(out, 0, sizeof *out);
    if (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0) {
        out->kind = text[0] == 'a' ? MBL_ADDRESS_AUTO : MBL_ADDRESS_OFF;
        return true;
    }
    if (strncmp(text, prefix, n) != 0)
        return read_tcp(text, out);
    if (length == n || length - n >= sizeof out->path)
        return false;
    memcpy(out->path, text + n, length - n + 1);
    out->kind = MBL_ADDRESS_UNIX;
    return true;
}
