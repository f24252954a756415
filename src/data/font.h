/* A built-in bitmap font for captions, so that sheets need no font file. */
#ifndef MBL_DATA_FONT_H
#define MBL_DATA_FONT_H

#include <stdbool.h>

enum { MBL_FONT_WIDTH = 5, MBL_FONT_HEIGHT = 7 };

/* Is the pixel at column x (0..4), row y (0..6) of the character inked? What is not printable ASCII shows as
 * '?'. */
bool mbl_font_pixel(char character, int x, int y);

#endif
