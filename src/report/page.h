/* The parts of the page of a report, in their order. */
#ifndef MBL_REPORT_PAGE_H
#define MBL_REPORT_PAGE_H

#include "report/data.h"

#include <stdio.h>

extern const char mbl_page_style[]; /* CSS */

/* Title, figures, rewards before and after. */
void mbl_page_summary(FILE *out, const mbl_run_data_t *data);
/* Curves of rewards, weights, cosines, losses. ERR_MEM. */
mbl_status_t mbl_page_curves(FILE *out, const mbl_run_data_t *data);
/* The first and the last sheet of samples, image by image; nothing where there are none. */
mbl_status_t mbl_page_samples(FILE *out, const mbl_run_data_t *data);
/* Time by phase, images, scores. */
void mbl_page_cost(FILE *out, const mbl_run_data_t *data);
/* Alarms, run.yaml, how the page was made. */
void mbl_page_end(FILE *out, const mbl_run_data_t *data);

/* "<h2>TITLE</h2>" within a section of its own, and a line that says what there is to see. */
void mbl_page_section(FILE *out, const char *title, const char *about);
/* The rewards with their colours. */
void mbl_page_legend(FILE *out, const mbl_run_data_t *data);

#endif
