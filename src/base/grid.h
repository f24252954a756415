/* Tables of text cells, filled in reading order and printed with aligned columns or as Markdown. */
#ifndef MBL_BASE_GRID_H
#define MBL_BASE_GRID_H

#include "base/status.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct mbl_grid mbl_grid_t;

/* The first `left` columns are flush left, the others right. The first row is the head. Free with
 * mbl_grid_free. */
mbl_status_t mbl_grid_new(size_t columns, size_t left, mbl_grid_t **out);
void mbl_grid_free(mbl_grid_t *grid);
/* The next cell. A failure (no memory) shows when the table is printed. */
void mbl_grid_cell(mbl_grid_t *grid, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* ERR_MEM, ERR_IO, or ERR_ARG when the last row is not full. */
mbl_status_t mbl_grid_print(const mbl_grid_t *grid, bool markdown, FILE *out);

#endif
