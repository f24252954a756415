/* Line charts. */
#include "data/chart.h"

#include "data/canvas.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

enum { WIDTH = 800, HEIGHT = 420, LEFT = 70, TOP = 40, RIGHT = 180, BOTTOM = 40, ROW = 20 };

/* Colours that stay apart for most eyes (Okabe and Ito), then round again. */
static const double colors[8][3] = {{0, .45, .70},   {.90, .62, 0}, {0, .62, .45},   {.80, .47, .65},
                                    {.34, .71, .91}, {.84, .37, 0}, {.47, .47, .47}, {.59, .55, 0}};

typedef struct {
    mbl_canvas_t *canvas;
    double x0, x1, y0, y1; /* ends of the axes */
    int width, height;     /* of the plot */
} chart_t;

static void text(const chart_t *c, const char *words, double left, double top, double size, size_t width,
                 const double ink[3]) {
    mbl_text_style_t style = {
        .size = size, .width = width, .max_lines = width > 0, .ink = {ink[0], ink[1], ink[2]}};
    mbl_canvas_text(c->canvas, words, left, top, &style);
}

static double place_x(const chart_t *c, double x) {
    return LEFT + (x - c->x0) / (c->x1 - c->x0) * c->width;
}

static double place_y(const chart_t *c, double y) {
    return TOP + (c->y1 - y) / (c->y1 - c->y0) * c->height;
}

static double half_at(const mbl_chart_line_t *line, size_t i) {
    return line->half && isfinite(line->half[i]) ? line->half[i] : 0;
}

static void find_ends(chart_t *c, const double *x, size_t n, const mbl_chart_line_t *lines, size_t n_lines) {
    c->x0 = x[0];
    c->x1 = x[n - 1] > x[0] ? x[n - 1] : x[0] + 1;
    c->y0 = INFINITY;
    c->y1 = -INFINITY;
    for (size_t k = 0; k < n_lines; k++)
        for (size_t i = 0; i < n; i++)
            if (isfinite(lines[k].y[i])) {
                c->y0 = fmin(c->y0, lines[k].y[i] - half_at(&lines[k], i));
                c->y1 = fmax(c->y1, lines[k].y[i] + half_at(&lines[k], i));
            }
    if (!(c->y0 <= c->y1))
        c->y0 = c->y1 = 0;
    double room = c->y1 > c->y0 ? 0.05 * (c->y1 - c->y0) : 0.5;
    c->y0 -= room;
    c->y1 += room;
}

static void draw_axes(const chart_t *c, const char *title) {
    static const double ink[3] = {.16, .16, .16};
    cairo_t *cairo = c->canvas->cairo;
    char label[32];
    text(c, title, LEFT, 10, 16, 0, ink);
    cairo_set_line_width(cairo, 1);
    for (int i = 0; i <= 4; i++) {
        double y = c->y0 + i * (c->y1 - c->y0) / 4, at = floor(place_y(c, y)) + 0.5;
        double shade = i ? .82 : .16;
        cairo_set_source_rgb(cairo, shade, shade, shade);
        cairo_move_to(cairo, LEFT, at);
        cairo_line_to(cairo, LEFT + c->width, at);
        cairo_stroke(cairo);
        snprintf(label, sizeof label, "%.2f", y);
        text(c, label, 16, at - 8, 13, 0, ink);
    }
    for (int i = 0; i <= 4; i++) {
        double x = c->x0 + i * (c->x1 - c->x0) / 4;
        snprintf(label, sizeof label, "%.0f", x);
        text(c, label, place_x(c, x) - 10, TOP + c->height + 10, 13, 0, ink);
    }
}

/* Around the values from `from` to `to`, none of which is a gap. */
static void draw_band(const chart_t *c, const double *x, size_t from, size_t to,
                      const mbl_chart_line_t *one) {
    cairo_t *cairo = c->canvas->cairo;
    cairo_new_path(cairo);
    for (size_t i = from; i < to; i++)
        cairo_line_to(cairo, place_x(c, x[i]), place_y(c, one->y[i] + half_at(one, i)));
    for (size_t i = to; i-- > from;)
        cairo_line_to(cairo, place_x(c, x[i]), place_y(c, one->y[i] - half_at(one, i)));
    cairo_close_path(cairo);
    cairo_fill(cairo);
}

static void draw_bands(const chart_t *c, const double *x, size_t n, const mbl_chart_line_t *one, size_t k) {
    const double *color = colors[k % 8];
    cairo_set_source_rgba(c->canvas->cairo, color[0], color[1], color[2], 0.15);
    for (size_t i = 0, end; one->half && i < n; i = end + 1) {
        for (end = i; end < n && isfinite(one->y[end]);)
            end++;
        if (end > i)
            draw_band(c, x, i, end, one);
    }
}

static void draw_line(const chart_t *c, const double *x, size_t n, const mbl_chart_line_t *one, size_t k) {
    const double *color = colors[k % 8];
    cairo_t *cairo = c->canvas->cairo;
    cairo_set_source_rgb(cairo, color[0], color[1], color[2]);
    cairo_set_line_width(cairo, 2);
    cairo_set_line_cap(cairo, CAIRO_LINE_CAP_ROUND); /* a value between gaps is a dot */
    cairo_new_path(cairo);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(one->y[i]))
            continue;
        bool begins = i == 0 || !isfinite(one->y[i - 1]);
        (begins ? cairo_move_to : cairo_line_to)(cairo, place_x(c, x[i]), place_y(c, one->y[i]));
        if (begins)
            cairo_line_to(cairo, place_x(c, x[i]), place_y(c, one->y[i]));
    }
    cairo_stroke(cairo);
    text(c, one->name, WIDTH - RIGHT + 14, TOP + (double)k * ROW, 14, RIGHT - 20, color);
}

mbl_status_t mbl_chart_draw(const char *title, const double *x, size_t n, const mbl_chart_line_t *lines,
                            size_t n_lines, mbl_image_t *out) {
    MBL_REQUIRE(title && x && lines && out && n > 0 && n_lines > 0 && n_lines <= MBL_CHART_MAX_LINES,
                "a chart of %zu lines over %zu places: expected 1 to %d lines and at least one place",
                n_lines, n, MBL_CHART_MAX_LINES);
    size_t legend = TOP + n_lines * ROW + BOTTOM, height = legend > HEIGHT ? legend : HEIGHT;
    mbl_canvas_t canvas;
    MBL_TRY(mbl_canvas_new(WIDTH, height, &canvas));
    chart_t chart = {.canvas = &canvas, .width = WIDTH - LEFT - RIGHT, .height = (int)height - TOP - BOTTOM};
    find_ends(&chart, x, n, lines, n_lines);
    draw_axes(&chart, title);
    for (size_t k = 0; k < n_lines; k++)
        draw_bands(&chart, x, n, &lines[k], k);
    for (size_t k = 0; k < n_lines; k++)
        draw_line(&chart, x, n, &lines[k], k);
    mbl_status_t status = mbl_canvas_finish(&canvas, out);
    mbl_canvas_free(&canvas);
    return status;
}
