/* The first few of many names, for a message. */
#ifndef MBL_BASE_NAMES_H
#define MBL_BASE_NAMES_H

#include <stddef.h>

enum { MBL_NAMES_SHOWN = 3 };

typedef struct {
    char text[400];
    size_t n;
} mbl_names_t; /* begins as {0} */

void mbl_names_add(mbl_names_t *names, const char *name);
/* "a, b, c and 7 more"; once, when all are added. */
const char *mbl_names_text(mbl_names_t *names);

#endif
