/* A reward server in Python that belongs to this process: started with the user's interpreter and file,
 * started anew when it dies, and ended with this process however that ends. */
#ifndef MBL_REWARD_REMOTE_CHILD_H
#define MBL_REWARD_REMOTE_CHILD_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *name; /* of the reward, for messages */
    const char *file, *python, *device;
    size_t workers, batch;
    double seconds; /* that one call of a function may take */
} mbl_child_options_t;

typedef struct mbl_child mbl_child_t;
/* Starts it; it is ready when it answers at mbl_child_url, a socket in a folder of its own. What it writes
 * is logged line by line. Errors: ERR_IO, ERR_MEM. Close with mbl_child_close; NULL is fine there. */
mbl_status_t mbl_child_open(const mbl_child_options_t *options, mbl_child_t **out);
/* Asks it to end, and ends it after two seconds. */
void mbl_child_close(mbl_child_t *child);
const char *mbl_child_url(const mbl_child_t *child);
/* Whether it has ended once. Writes how and when, and what it wrote last; or that it is still loading. */
bool mbl_child_ended(mbl_child_t *child, char *text, size_t size);

#endif
