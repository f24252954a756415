/* Line charts. */
#include "data/chart.h"

#include "data/font.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 800, HEIGHT = 420, LEFT = 70, TOP = 40, RIGHT = 180, BOTTOM = 40, FONT = 2, ROW = 20 };

/* Colours that stay apart for most eyes (Okabe and Ito), then round again. */
static const uint8_t colors[8][3] = {{0, 114, 178},  {230, 159, 0}, {0, 158, 115},   {204, 121, 167},
                                     {86, 180, 233}, {213, 94, 0},  {120, 120, 120}, {150, 140, 0}};
static const uint8_t ink[3] = {40, 40, 40}, faint[3] = {210, 210, 210};

typedef struct {
    mbl_image_t *image;
    double x0, x1, y0, y1; /* ends of the axes */
    int width, height;     /* of the plot */
} chart_t;

static void dot(mbl_image_t *image, int x, int y, const uint8_t color[3]) {
    if (x >= 0 && y >= 0 && x < (int)image->width && y < (int)image->height)
        memcpy(image->rgb + 3 * ((size_t)y * image->width + (size_t)x), color, 3);
}

static void text(mbl_image_t *image, const char *words, int left, int top, const uint8_t color[3]) {
    for (; *words; words++, left += (MBL_FONT_WIDTH + 1) * FONT)
        for (int y = 0; y < MBL_FONT_HEIGHT * FONT; y++)
            for (int x = 0; x < MBL_FONT_WIDTH * FONT; x++)
                if (mbl_font_pixel(*words, x / FONT, y / FONT))
                    dot(image, left + x, top + y, color);
}

/* Two pixels wide. */
static void line(mbl_image_t *image, double ax, double ay, double bx, double by, const uint8_t color[3]) {
    int steps = (int)ceil(fmax(fabs(bx - ax), fabs(by - ay)));
    for (int i = 0; i <= steps; i++) {
        double at = steps ? (double)i / steps : 0;
        int x = (int)lround(ax + at * (bx - ax)), y = (int)lround(ay + at * (by - ay));
        dot(image, x, y, color);
        dot(image, x, y + 1, color);
    }
}

static double place_x(const chart_t *c, double x) {
    return LEFT + (x - c->x0) / (c->x1 - c->x0) * c->width;
}

static double place_y(const chart_t *c, double y) {
    return TOP + (c->y1 - y) / (c->y1 - c->y0) * c->height;
}

static void find_ends(chart_t *c, const double *x, size_t n, const mbl_chart_line_t *lines, size_t n_lines) {
    c->x0 = x[0];
    c->x1 = x[n - 1] > x[0] ? x[n - 1] : x[0] + 1;
    c->y0 = INFINITY;
    c->y1 = -INFINITY;
    for (size_t k = 0; k < n_lines; k++)
        for (size_t i = 0; i < n; i++)
            if (isfinite(lines[k].y[i])) {
                c->y0 = fmin(c->y0, lines[k].y[i]);
                c->y1 = fmax(c->y1, lines[k].y[i]);
            }
    if (!(c->y0 <= c->y1))
        c->y0 = c->y1 = 0;
    double room = c->y1 > c->y0 ? 0.05 * (c->y1 - c->y0) : 0.5;
    c->y0 -= room;
    c->y1 += room;
}

static void draw_axes(const chart_t *c, const char *title) {
    char label[32];
    text(c->image, title, LEFT, 12, ink);
    for (int i = 0; i <= 4; i++) {
        double y = c->y0 + i * (c->y1 - c->y0) / 4;
        line(c->image, LEFT, place_y(c, y), LEFT + c->width, place_y(c, y), i ? faint : ink);
        snprintf(label, sizeof label, "%.2f", y);
        text(c->image, label, 4, (int)place_y(c, y) - 7, ink);
    }
    for (int i = 0; i <= 4; i++) {
        double x = c->x0 + i * (c->x1 - c->x0) / 4;
        snprintf(label, sizeof label, "%.0f", x);
        text(c->image, label, (int)place_x(c, x) - 12, TOP + c->height + 12, ink);
    }
}

static void draw_line(const chart_t *c, const double *x, size_t n, const mbl_chart_line_t *one, size_t k) {
    const uint8_t *color = colors[k % 8];
    char name[15];
    for (size_t i = 0; i < n; i++) {
        size_t from = i > 0 && isfinite(one->y[i - 1]) ? i - 1 : i;
        if (isfinite(one->y[i]))
            line(c->image, place_x(c, x[from]), place_y(c, one->y[from]), place_x(c, x[i]),
                 place_y(c, one->y[i]), color);
    }
    snprintf(name, sizeof name, "%s", one->name);
    text(c->image, name, WIDTH - RIGHT + 14, TOP + (int)k * ROW, color);
}

mbl_status_t mbl_chart_draw(const char *title, const double *x, size_t n, const mbl_chart_line_t *lines,
                            size_t n_lines, mbl_image_t *out) {
    MBL_REQUIRE(title && x && lines && out && n > 0 && n_lines > 0 && n_lines <= MBL_CHART_MAX_LINES,
                "a chart of %zu lines over %zu places: 1 to %d lines and at least one place would be right",
                n_lines, n, MBL_CHART_MAX_LINES);
    size_t legend = TOP + n_lines * ROW + BOTTOM, height = legend > HEIGHT ? legend : HEIGHT;
    MBL_TRY(mbl_image_new(WIDTH, height, out));
    memset(out->rgb, 255, 3 * WIDTH * height);
    chart_t chart = {.image = out, .width = WIDTH - LEFT - RIGHT, .height = (int)height - TOP - BOTTOM};
    find_ends(&chart, x, n, lines, n_lines);
    draw_axes(&chart, title);
    for (size_t k = 0; k < n_lines; k++)
        draw_line(&chart, x, n, &lines[k], k);
    return MBL_OK;
}
