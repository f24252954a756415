/* SHA-256: nettle's, in the form the rest of marble calls it. */
#include "base/sha256.h"

#include <nettle/base16.h>
#include <nettle/version.h>

void mbl_sha256_init(mbl_sha256_t *sha) {
    sha256_init(sha);
}

void mbl_sha256_update(mbl_sha256_t *sha, const void *data, size_t size) {
    if (size)
        sha256_update(sha, size, data);
}

void mbl_sha256_final(mbl_sha256_t *sha, unsigned char out[MBL_SHA256_BYTES]) {
#if NETTLE_VERSION_MAJOR >= 4 /* where the length went */
    sha256_digest(sha, out);
#else
    sha256_digest(sha, MBL_SHA256_BYTES, out);
#endif
}

void mbl_sha256_hex(mbl_sha256_t *sha, char out[MBL_SHA256_HEX]) {
    unsigned char raw[MBL_SHA256_BYTES];
    mbl_sha256_final(sha, raw);
    base16_encode_update(out, sizeof raw, raw);
    out[MBL_SHA256_HEX - 1] = 0;
}

void mbl_sha256_text(const void *data, size_t size, char out[MBL_SHA256_HEX]) {
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    mbl_sha256_update(&sha, data, size);
    mbl_sha256_hex(&sha, out);
}
