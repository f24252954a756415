/* Tables of text. */
#include "base/grid.h"

#include "base/mem.h"

#include <stdarg.h>
#include <string.h>

struct mbl_grid {
    size_t columns, left, count, room;
    char **cells;
    bool failed;
};

mbl_status_t mbl_grid_new(size_t columns, size_t left, mbl_grid_t **out) {
    mbl_grid_t *grid;
    MBL_REQUIRE(columns > 0, "a table without columns");
    MBL_ALLOC(grid, 1);
    grid->columns = columns;
    grid->left = left;
    *out = grid;
    return MBL_OK;
}

void mbl_grid_free(mbl_grid_t *grid) {
    if (!grid)
        return;
    for (size_t i = 0; i < grid->count; i++)
        mbl_free(grid->cells[i]);
    mbl_free(grid->cells);
    mbl_free(grid);
}

/* Room for one more cell. */
static bool grow(mbl_grid_t *grid) {
    if (grid->count < grid->room)
        return true;
    size_t room = 2 * grid->room + grid->columns;
    char **cells = mbl_realloc(grid->cells, grid->room, room, sizeof *cells);
    if (!cells)
        return false;
    grid->cells = cells;
    grid->room = room;
    return true;
}

void mbl_grid_cell(mbl_grid_t *grid, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *text = length < 0 || grid->failed || !grow(grid) ? NULL : mbl_calloc((size_t)length + 1, 1);
    if (!text) {
        grid->failed = true;
        return;
    }
    va_start(list, format);
    vsnprintf(text, (size_t)length + 1, format, list);
    va_end(list);
    grid->cells[grid->count++] = text;
}

/* Characters of UTF-8. */
static size_t width(const char *text) {
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void print_aligned(const mbl_grid_t *grid, const size_t *widest, FILE *out) {
    for (size_t i = 0; i < grid->count; i++) {
        size_t column = i % grid->columns;
        bool last = column + 1 == grid->columns, left = column < grid->left;
        int pad = (int)(widest[column] - width(grid->cells[i]));
        if (left)
            fprintf(out, "%s%*s", grid->cells[i], last ? 0 : pad, "");
        else
            fprintf(out, "%*s%s", pad, "", grid->cells[i]);
        fputs(last ? "\n" : "  ", out);
    }
}

/* A bar would end the cell. */
static void print_escaped(const char *text, FILE *out) {
    for (; *text; text++) {
        if (*text == '|')
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void print_markdown(const mbl_grid_t *grid, FILE *out) {
    for (size_t i = 0; i < grid->count; i++) {
        size_t column = i % grid->columns;
        fputs(column ? " " : "| ", out);
        print_escaped(grid->cells[i], out);
        fputs(column + 1 == grid->columns ? " |\n" : " |", out);
        if (i + 1 != grid->columns)
            continue;
        for (size_t j = 0; j < grid->columns; j++)
            fputs(j == 0 ? "|---|" : j < grid->left ? "---|" : "---:|", out);
        fputs("\n", out);
    }
}

mbl_status_t mbl_grid_print(const mbl_grid_t *grid, bool markdown, FILE *out) {
    size_t *widest;
    if (grid->failed)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a table");
    MBL_REQUIRE(grid->count % grid->columns == 0, "%zu cells in a table of %zu columns", grid->count,
                grid->columns);
    MBL_ALLOC(widest, grid->columns);
    for (size_t i = 0; i < grid->count; i++) {
        size_t *most = &widest[i % grid->columns], n = width(grid->cells[i]);
        *most = n > *most ? n : *most;
    }
    if (markdown)
        print_markdown(grid, out);
    else
        print_aligned(grid, widest, out);
    mbl_free(widest);
    return ferror(out) ? MBL_FAIL(MBL_ERR_IO, "a table cannot be written") : MBL_OK;
}
