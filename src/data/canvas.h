/* A drawing surface: lines by cairo, text in any script by Pango. What sheets and charts are drawn on. */
#ifndef MBL_DATA_CANVAS_H
#define MBL_DATA_CANVAS_H

#include "data/image.h"

#include <cairo.h>

typedef struct {
    cairo_t *cairo; /* its target is an RGB image surface; (0, 0) is the upper left corner */
    size_t width, height;
} mbl_canvas_t;

typedef struct {
    double size;      /* of the letters, in pixels */
    size_t width;     /* pixels at which lines wrap; 0: one line, however long */
    size_t max_lines; /* what does not fit ends in an ellipsis; 0: any number */
    double ink[3];    /* red, green, blue, 0..1 */
} mbl_text_style_t;

/* A white canvas. Release with mbl_canvas_free. */
mbl_status_t mbl_canvas_new(size_t width, size_t height, mbl_canvas_t *out);
void mbl_canvas_free(mbl_canvas_t *canvas);

/* Pixels that `text` (UTF-8; what is not is shown as replacement characters) takes in height. */
size_t mbl_text_height(const char *text, const mbl_text_style_t *style);
/* Draws it with its upper left corner at (left, top). */
void mbl_canvas_text(const mbl_canvas_t *canvas, const char *text, double left, double top,
                     const mbl_text_style_t *style);
/* Draws an image enlarged `scale` times without smoothing. */
mbl_status_t mbl_canvas_image(const mbl_canvas_t *canvas, const mbl_image_t *image, size_t left, size_t top,
                              size_t scale);

/* The canvas as an image; ERR_IO when cairo has met an error. Free *out with mbl_image_free. */
mbl_status_t mbl_canvas_finish(const mbl_canvas_t *canvas, mbl_image_t *out);

#endif
