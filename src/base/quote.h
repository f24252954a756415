/* Text for a person to copy into a shell. */
#ifndef MBL_BASE_QUOTE_H
#define MBL_BASE_QUOTE_H

#include <stddef.h>

/* `text` as one word of a shell: as it is where that is safe, else in single quotes; cut to `size`. Returns
 * out. */
const char *mbl_quote(const char *text, char *out, size_t size);

#endif
