/* The report of a run: one page of HTML that needs nothing else (configuration, rewards before and after,
 * curves, weights, cosines, samples, cost), and its charts as PNG files, all made from the files of the run's
 * folder. */
#ifndef MBL_REPORT_REPORT_H
#define MBL_REPORT_REPORT_H

#include "base/status.h"

/* DIR/report.html (or `out`), and DIR/report/ with the PNG files. `path` [size] (NULL: not wanted) is where
 * the page is. ERR_USAGE where the folder holds no run, ERR_IO. */
mbl_status_t mbl_report_write(const char *folder, const char *out, char *path, size_t size);

#endif
