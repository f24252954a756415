/* Which build of marble this is. */
#ifndef MBL_BASE_VERSION_H
#define MBL_BASE_VERSION_H

const char *mbl_version(void); /* "0.1.0" */
/* The commit it was built from, "4c24671b9b22" or "4c24671b9b22-dirty"; "" where the sources were no checkout
 * of git. */
const char *mbl_commit(void);

#endif
