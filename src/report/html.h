/* Pieces of HTML: text escaped, files embedded. */
#ifndef MBL_REPORT_HTML_H
#define MBL_REPORT_HTML_H

#include "base/status.h"

#include <stdbool.h>
#include <stdio.h>

/* Text as text, also within the quotes of an attribute. What is not UTF-8 is shown as replacement
 * characters, control characters as blanks. */
void mbl_html_text(FILE *out, const char *text);
/* Bytes as a data: URL of that media type. */
void mbl_html_data(FILE *out, const char *type, const void *bytes, size_t size);

/* A series of a chart over its own places x [n]. */
typedef struct {
    const char *name;           /* shown by a tooltip; NULL: none */
    const double *x, *y, *half; /* [n]; NAN leaves a gap; half: of intervals around y (NULL: none) */
    size_t n, color;
    enum { MBL_SVG_LINE, MBL_SVG_FAINT, MBL_SVG_DOTS } style;
} mbl_svg_series_t;
typedef struct {
    const char *title;            /* for those who hear the page */
    double width, height, x0, x1; /* of the drawing; ends of the x axis */
    double y0, y1;                /* ends of the y axis; NAN: of the series */
    bool stacked, zero;           /* areas upon each other; a line at zero */
} mbl_svg_chart_t;
/* An <svg> whose colours are classes of the page (c0 .. c7), so that it is readable in dark and light. */
void mbl_svg_chart(FILE *out, const mbl_svg_chart_t *chart, const mbl_svg_series_t *series, size_t n);

/* The mean of the values around each, out [n]: over about a twentieth of all. */
void mbl_svg_smooth(const double *y, size_t n, double *out);
/* Both [n], in place, to at most `most` places, of which each has the mean of those it stands for; returns
 * how many there are. */
size_t mbl_svg_shorten(double *x, double *y, size_t n, size_t most);

#endif
