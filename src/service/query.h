/* What stands behind the '?' of a request. */
#ifndef MBL_SERVICE_QUERY_H
#define MBL_SERVICE_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A key that a request takes, and its whole number. */
typedef struct {
    const char *key;
    uint64_t low, high, value; /* value: the default before */
    bool given;
} mbl_query_t;

enum { MBL_QUERY_FAULT = 200 };

/* Reads "a=1&b=2" into the keys. False for a key that is not among them or stands twice, and for what is no
 * whole number within its range; `fault` says which. */
bool mbl_query_read(const char *query, mbl_query_t *keys, size_t n, char fault[MBL_QUERY_FAULT]);

#endif
