/* Where things lie in an image of the signs world, shared by the drawing and the scorers. Pixels, (0, 0) at
 * the top left; a box covers [x, x + width) by [y, y + height). */
#ifndef MBL_DATA_SIGNS_LAYOUT_H
#define MBL_DATA_SIGNS_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MBL_PLATE_X = 4,
    MBL_PLATE_Y = 8,
    MBL_PLATE_WIDTH = 24,
    MBL_PLATE_HEIGHT = 16,
    MBL_GLYPH_WIDTH = 8,
    MBL_GLYPH_HEIGHT = 12,
    MBL_GLYPH_X = 7,     /* of the first glyph */
    MBL_GLYPH_STEP = 10, /* to the second */
    MBL_GLYPH_Y = 10,
    MBL_SHAPE_SIZE = 8, /* circles, squares and triangles fill a box of this size */
    MBL_SHAPES = 3,
    MBL_SHAPE_GAP = 2,      /* ground between two shapes, at least */
    MBL_SHAPE_MARGIN = 0,   /* ground between a shape and the border */
    MBL_SHAPE_LATTICE = 8,  /* a shape's left and top are the margin plus multiples of this */
    MBL_HORIZON_FIRST = 11, /* first row of the lower half: FIRST..LAST */
    MBL_HORIZON_LAST = 21
};

/* Is the pixel of the glyph (index into mbl_signs_glyphs) inked? */
bool mbl_signs_glyph_pixel(int glyph, int x, int y);

/* Is the pixel of the shape's box filled, and how many are? */
bool mbl_signs_shape_pixel(int shape, int x, int y);
int mbl_signs_shape_area(int shape);

/* The dark ink of the glyphs. */
const uint8_t *mbl_signs_ink_rgb(void);

#endif
