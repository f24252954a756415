/* Who may ask: what headers of a request say of where it comes from. Pure functions of texts. */
#ifndef MBL_SERVICE_GUARD_H
#define MBL_SERVICE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum { MBL_TOKEN = 65 }; /* 32 random bytes in hexadecimal, with a 0 */

/* Whether a Host header names this service: a loopback name or an IP address with any port (a tunnel has
 * another one), or `own`, what is listened on ("" for none). Other names may be anybody's that were made to
 * lead here (DNS rebinding). */
bool mbl_guard_host(const char *host, const char *own);
/* Whether an Origin header ("" where there is none) is that of a page which came from `host` itself. */
bool mbl_guard_origin(const char *origin, const char *host);
/* Whether an Authorization header bears the token. The time it takes does not depend on where they differ. */
bool mbl_guard_token(const char *authorization, const char *token);

/* A token of random bytes, in out [MBL_TOKEN]; false where the system gives none. */
bool mbl_guard_make_token(char *out);

/* At most `rate` a second, and `burst` at once. */
typedef struct {
    double rate, burst, left, at; /* at: by mbl_now */
} mbl_guard_rate_t;
bool mbl_guard_take(mbl_guard_rate_t *rate, double now);

#endif
