/* Line charts as images, drawn with the caption font: what a model card and a report show of
 * a run. */
#ifndef MBL_DATA_CHART_H
#define MBL_DATA_CHART_H

#include "data/image.h"

enum { MBL_CHART_MAX_LINES = 64 };

typedef struct {
    const char *name;
    const double *y;    /* n values; NaN leaves a gap */
    const double *half; /* n halves of the intervals around them, drawn as a band; NULL: none */
} mbl_chart_line_t;

/* Lines over common places x [n] (rising), with axes, their ends in numbers, a title and a legend; 800 x 420
 * and taller when the legend needs it. Free *out with mbl_image_free. */
mbl_status_t mbl_chart_draw(const char *title, const double *x, size_t n, const mbl_chart_line_t *lines,
                            size_t n_lines, mbl_image_t *out);

#endif
