/* One writer in a folder: the file `lock` in it names the process (see holder.h), whose thread renews its
 * time. It is made by link(2), which is atomic on NFS too, or by O_EXCL where there are no links. A lock is
 * stale, and taken over with a line in the log, once its process has ended, by what this host or Slurm knows;
 * where neither knows it, once its time is MBL_LOCK_STALE_S old by the file system's own clock. */
#ifndef MBL_RUN_LOCK_H
#define MBL_RUN_LOCK_H

#include "run/holder.h"

enum { MBL_LOCK_BEAT_S = 20, MBL_LOCK_STALE_S = 180 };

typedef struct mbl_lock mbl_lock_t;

/* ERR_BUSY, with who, where another process holds it; release with mbl_lock_release. The folder has to exist.
 */
mbl_status_t mbl_lock_take(const char *folder, mbl_lock_t **out);
/* ERR_BUSY where another process holds it; takes and changes nothing. No folder is nobody's. */
mbl_status_t mbl_lock_look(const char *folder);
/* Whether another process has taken it over meanwhile: this one may write there no more. */
bool mbl_lock_lost(const mbl_lock_t *lock);
void mbl_lock_release(mbl_lock_t *lock); /* NULL does nothing */

/* Who holds it; false when nobody does, or nothing readable is in it. */
bool mbl_lock_holder(const char *folder, mbl_holder_t *out);
/* What the thread does every MBL_LOCK_BEAT_S: renews the time, makes the file again if it was removed, finds
 * out that it is another's. */
void mbl_lock_beat(mbl_lock_t *lock);

#endif
