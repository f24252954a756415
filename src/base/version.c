/* Which build this is. The commit is what CMake found when it configured; only this file is built with it, so
 * that a new commit builds nothing else anew. */
#include "base/version.h"

const char *mbl_version(void) {
    return MBL_VERSION;
}

const char *mbl_commit(void) {
    return MBL_COMMIT;
}
