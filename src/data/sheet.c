/* Contact sheets: many images enlarged in rows, each with its caption. */
#include "data/canvas.h"

enum { GAP = 8, MOST_LINES = 8 };

/* Where everything lies, in pixels. */
typedef struct {
    size_t columns, rows, cell_width, cell_height; /* a cell: image, then caption */
    size_t width, height, title_height;            /* of the sheet */
    mbl_text_style_t caption, title;
} layout_t;

static layout_t lay_out(const mbl_image_t *images, const char *const *captions, const char *title, size_t n,
                        size_t columns, size_t scale) {
    layout_t at = {.columns = columns < n ? columns : n, .cell_width = images[0].width * scale};
    at.rows = (n + columns - 1) / columns;
    at.width = at.columns * (at.cell_width + GAP) + GAP;
    at.caption = (mbl_text_style_t){.size = at.cell_width >= 250 ? 18 : 11,
                                    .width = at.cell_width,
                                    .max_lines = MOST_LINES,
                                    .ink = {.12, .12, .12}};
    at.title = at.caption;
    at.title.size = at.width >= 500 ? 18 : 12;
    at.title.width = at.width - 2 * GAP;
    size_t tallest = 0;
    for (size_t i = 0; captions && i < n; i++) {
        size_t own = captions[i] ? mbl_text_height(captions[i], &at.caption) : 0;
        tallest = own > tallest ? own : tallest;
    }
    at.cell_height = images[0].height * scale + (tallest ? tallest + 4 : 0);
    at.title_height = title ? mbl_text_height(title, &at.title) + GAP : 0;
    at.height = at.title_height + at.rows * (at.cell_height + GAP) + GAP;
    return at;
}

void mbl_image_sheet_cells(const mbl_image_t *images, const char *const *captions, const char *title,
                           size_t n, size_t columns, size_t scale, mbl_image_cells_t *out) {
    layout_t at = lay_out(images, captions, title, n, columns, scale);
    *out = (mbl_image_cells_t){.columns = at.columns,
                               .left = GAP,
                               .top = GAP + at.title_height,
                               .step_x = at.cell_width + GAP,
                               .step_y = at.cell_height + GAP,
                               .width = images[0].width * scale,
                               .height = images[0].height * scale};
}

mbl_status_t mbl_image_sheet(const mbl_image_t *images, const char *const *captions, const char *title,
                             size_t n, size_t columns, size_t scale, mbl_image_t *sheet) {
    MBL_REQUIRE(
        n > 0 && columns > 0 && scale > 0 && scale <= 64,
        "a sheet of %zu images in %zu columns, enlarged %zu times: expected at least one of each, and "
        "at most 64 times",
        n, columns, scale);
    for (size_t i = 0; i < n; i++)
        MBL_REQUIRE(images[i].width == images[0].width && images[i].height == images[0].height &&
                        images[i].rgb,
                    "image %zu of a sheet is %zu x %zu, expected that of the first, %zu x %zu", i,
                    images[i].width, images[i].height, images[0].width, images[0].height);
    MBL_REQUIRE(images[0].width <= 1 << 14 && images[0].height <= 1 << 14 && n <= 1 << 20,
                "a sheet of %zu images of %zu x %zu is too large", n, images[0].width, images[0].height);
    layout_t at = lay_out(images, captions, title, n, columns, scale);
    mbl_canvas_t canvas;
    MBL_TRY(mbl_canvas_new(at.width, at.height, &canvas));
    mbl_status_t status = MBL_OK;
    if (title)
        mbl_canvas_text(&canvas, title, GAP, GAP, &at.title);
    for (size_t i = 0; status == MBL_OK && i < n; i++) {
        size_t left = GAP + i % at.columns * (at.cell_width + GAP);
        size_t top = GAP + at.title_height + i / at.columns * (at.cell_height + GAP);
        status = mbl_canvas_image(&canvas, &images[i], left, top, scale);
        if (captions && captions[i])
            mbl_canvas_text(&canvas, captions[i], (double)left, (double)(top + images[i].height * scale + 4),
                            &at.caption);
    }
    if (status == MBL_OK)
        status = mbl_canvas_finish(&canvas, sheet);
    mbl_canvas_free(&canvas);
    return status;
}
