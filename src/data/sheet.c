/* Contact sheets: many pictures enlarged in rows, each with its caption. */
#include "data/image.h"
#include "data/font.h"
#include "base/mem.h"

#include <string.h>

enum { GAP = 8, LINE = MBL_FONT_HEIGHT + 3, MOST_LINES = 8, ADVANCE = MBL_FONT_WIDTH + 1 };
static const uint8_t paper = 255, ink = 32;

/* Where everything lies, in pixels. */
typedef struct {
    size_t columns, rows, cell_width, cell_height, scale; /* a cell: picture, then caption */
    size_t font;                                          /* enlargement of the caption's font */
    size_t title_font, title_height;
} layout_t;

static bool continues(char c) {
    return ((unsigned char)c & 0xC0) == 0x80; /* the later bytes of a UTF-8 character */
}

/* The next line of at most `room` characters: sets *start and *end (bytes) and returns the rest. Breaks at
 * spaces, and within a word that has no room. */
static const char *take_line(const char *text, size_t room, const char **start, const char **end) {
    while (*text == ' ')
        text++;
    const char *at = text, *space = NULL;
    for (size_t used = 0; *at && *at != '\n'; at++) {
        if (!continues(*at) && used++ == room)
            break;
        if (*at == ' ')
            space = at;
    }
    *start = text;
    if (!*at || *at == '\n' || *at == ' ' || !space)
        *end = at;
    else
        *end = space;
    return **end == '\n' ? *end + 1 : *end;
}

static size_t count_lines(const char *text, size_t room) {
    size_t lines = 0;
    const char *start, *end;
    while (text && *text && lines < MOST_LINES) {
        text = take_line(text, room, &start, &end);
        lines++;
    }
    return lines;
}

static void draw_character(mbl_image_t *sheet, char c, size_t left, size_t top, size_t font) {
    for (size_t y = 0; y < MBL_FONT_HEIGHT * font && top + y < sheet->height; y++)
        for (size_t x = 0; x < MBL_FONT_WIDTH * font && left + x < sheet->width; x++)
            if (mbl_font_pixel(c, (int)(x / font), (int)(y / font)))
                memset(sheet->rgb + 3 * ((top + y) * sheet->width + left + x), ink, 3);
}

static void draw_text(mbl_image_t *sheet, const char *text, size_t left, size_t top, size_t font,
                      size_t room) {
    const char *start, *end;
    for (size_t line = 0; text && *text && line < MOST_LINES; line++) {
        text = take_line(text, room, &start, &end);
        size_t x = left;
        for (const char *c = start; c < end; c++) {
            if (continues(*c))
                continue;
            draw_character(sheet, *c, x, top + line * LINE * font, font);
            x += ADVANCE * font;
        }
    }
}

static void draw_picture(mbl_image_t *sheet, const mbl_image_t *image, size_t left, size_t top,
                         size_t scale) {
    for (size_t y = 0; y < image->height * scale; y++) {
        uint8_t *to = sheet->rgb + 3 * ((top + y) * sheet->width + left);
        const uint8_t *from = image->rgb + 3 * (y / scale * image->width);
        for (size_t x = 0; x < image->width * scale; x++)
            memcpy(to + 3 * x, from + 3 * (x / scale), 3);
    }
}

/* Characters that fit into `width` pixels; one at least. */
static size_t room_in(size_t width, size_t font) {
    size_t room = (width + font) / (ADVANCE * font);
    return room ? room : 1;
}

static layout_t lay_out(const mbl_image_t *images, const char *const *captions, const char *title, size_t n,
                        size_t columns, size_t scale, size_t *width, size_t *height) {
    layout_t at = {
        .columns = columns < n ? columns : n, .scale = scale, .cell_width = images[0].width * scale};
    size_t lines = 0;
    at.rows = (n + columns - 1) / columns;
    at.font = at.cell_width >= 250 ? 2 : 1;
    for (size_t i = 0; captions && i < n; i++) {
        size_t own = count_lines(captions[i], room_in(at.cell_width, at.font));
        lines = own > lines ? own : lines;
    }
    at.cell_height = images[0].height * scale + (lines ? lines * LINE * at.font + 2 : 0);
    *width = at.columns * (at.cell_width + GAP) + GAP;
    at.title_font = *width >= 500 ? 2 : 1;
    lines = count_lines(title, room_in(*width - 2 * GAP, at.title_font));
    at.title_height = lines ? lines * LINE * at.title_font + GAP : 0;
    *height = at.title_height + at.rows * (at.cell_height + GAP) + GAP;
    return at;
}

mbl_status_t mbl_image_sheet(const mbl_image_t *images, const char *const *captions, const char *title,
                             size_t n, size_t columns, size_t scale, mbl_image_t *sheet) {
    MBL_REQUIRE(
        n > 0 && columns > 0 && scale > 0 && scale <= 64,
        "a sheet of %zu pictures in %zu columns, enlarged %zu times: at least one of each, and at most 64 "
        "times, would be right",
        n, columns, scale);
    for (size_t i = 0; i < n; i++)
        MBL_REQUIRE(images[i].width == images[0].width && images[i].height == images[0].height &&
                        images[i].rgb,
                    "picture %zu of a sheet is %zu x %zu; all have to be like the first, %zu x %zu", i,
                    images[i].width, images[i].height, images[0].width, images[0].height);
    size_t width, height;
    MBL_REQUIRE(images[0].width <= 1 << 14 && images[0].height <= 1 << 14 && n <= 1 << 20,
                "a sheet of %zu pictures of %zu x %zu is too large", n, images[0].width, images[0].height);
    layout_t at = lay_out(images, captions, title, n, columns, scale, &width, &height);
    MBL_TRY(mbl_image_new(width, height, sheet));
    memset(sheet->rgb, paper, 3 * width * height);
    draw_text(sheet, title, GAP, GAP, at.title_font, room_in(width - 2 * GAP, at.title_font));
    for (size_t i = 0; i < n; i++) {
        size_t left = GAP + i % columns * (at.cell_width + GAP);
        size_t top = GAP + at.title_height + i / columns * (at.cell_height + GAP);
        draw_picture(sheet, &images[i], left, top, scale);
        if (captions)
            draw_text(sheet, captions[i], left, top + images[i].height * scale + 4, at.font,
                      room_in(at.cell_width, at.font));
    }
    return MBL_OK;
}
