/* The charts of a report as PNG files, for slides and papers. */
#ifndef MBL_REPORT_PLOTS_H
#define MBL_REPORT_PLOTS_H

#include "report/data.h"

/* rewards.png (change on the held-out prompts, with intervals), alpha.png and cosines.png into `folder`, as
 * far as the run has what they show. */
mbl_status_t mbl_plots_write(const mbl_run_data_t *data, const char *folder);

#endif
