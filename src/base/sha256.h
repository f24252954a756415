/* SHA-256 by nettle, which takes the processor's SHA instructions where there are any: digests of files and
 * datasets. */
#ifndef MBL_BASE_SHA256_H
#define MBL_BASE_SHA256_H

#include <nettle/sha2.h>
#include <stddef.h>

enum { MBL_SHA256_BYTES = SHA256_DIGEST_SIZE, MBL_SHA256_HEX = 65 }; /* hex text with its final zero */

typedef struct sha256_ctx mbl_sha256_t;

void mbl_sha256_init(mbl_sha256_t *sha);
void mbl_sha256_update(mbl_sha256_t *sha, const void *data, size_t size);
void mbl_sha256_final(mbl_sha256_t *sha, unsigned char out[MBL_SHA256_BYTES]);

/* The same as 64 lower-case hex digits; mbl_sha256_text digests one block of memory. */
void mbl_sha256_hex(mbl_sha256_t *sha, char out[MBL_SHA256_HEX]);
void mbl_sha256_text(const void *data, size_t size, char out[MBL_SHA256_HEX]);

#endif
