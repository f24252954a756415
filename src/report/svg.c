/* Charts as SVG within the page. */
#include "report/html.h"

#include <math.h>

enum { LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 24, COLORS = 8, MOST_TICKS = 40, MOST_PLACE = 99999 };

typedef struct {
    const mbl_svg_chart_t *chart;
    double y0, y1;
} frame_t;

/* A place outside of every chart where a number is beyond what can be computed with: SVG knows no inf. */
static double drawable(double place) {
    return fmax(-MOST_PLACE, fmin(MOST_PLACE, place));
}

static double place_x(const frame_t *f, double x) {
    return drawable(LEFT +
                    (x - f->chart->x0) / (f->chart->x1 - f->chart->x0) * (f->chart->width - LEFT - RIGHT));
}

static double place_y(const frame_t *f, double y) {
    return drawable(TOP + (f->y1 - y) / (f->y1 - f->y0) * (f->chart->height - TOP - BOTTOM));
}

/* The round step (1, 2 or 5 times a power of ten) that makes at most `most` ticks. */
static double round_step(double range, size_t most) {
    double rough = range / (double)most, power = pow(10, floor(log10(rough)));
    double digit = rough / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static void find_ends(frame_t *f, const mbl_svg_series_t *series, size_t n) {
    f->y0 = INFINITY;
    f->y1 = -INFINITY;
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < series[k].n; i++) {
            double y = series[k].y[i], half = series[k].half ? series[k].half[i] : 0;
            if (!isfinite(y))
                continue;
            f->y0 = fmin(f->y0, y - (isfinite(half) ? half : 0));
            f->y1 = fmax(f->y1, y + (isfinite(half) ? half : 0));
        }
    if (!(f->y0 <= f->y1))
        f->y0 = f->y1 = 0;
    if (f->chart->zero) {
        f->y0 = fmin(f->y0, 0);
        f->y1 = fmax(f->y1, 0);
    }
    double size = fmax(fabs(f->y0), fabs(f->y1)); /* means of equal values differ in their last bits */
    double room = f->y1 - f->y0 > 1e-9 * size ? 0.06 * (f->y1 - f->y0) : fmax(size * 0.1, 1e-6);
    f->y0 = isnan(f->chart->y0) ? f->y0 - room : f->chart->y0;
    f->y1 = isnan(f->chart->y1) ? f->y1 + room : f->chart->y1;
}

static void draw_axes(FILE *out, const frame_t *f) {
    const mbl_svg_chart_t *c = f->chart;
    double step = round_step(f->y1 - f->y0, 4), right = c->width - RIGHT, bottom = c->height - BOTTOM;
    int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    double first = ceil(f->y0 / step - 1e-9);
    for (size_t i = 0; i < MOST_TICKS && (first + (double)i) * step <= f->y1 + step * 1e-9; i++) {
        double y = (first + (double)i) * step, at = place_y(f, y);
        fprintf(out, "<path class=\"grid%s\" d=\"M%d %.1fH%.1f\"/>",
                c->zero && fabs(y) < step / 2 ? " zero" : "", LEFT, at, right);
        if (decimals > 4)
            fprintf(out, "<text x=\"%d\" y=\"%.1f\" class=\"end\">%.1e</text>", LEFT - 6, at + 4, y);
        else
            fprintf(out, "<text x=\"%d\" y=\"%.1f\" class=\"end\">%.*f</text>", LEFT - 6, at + 4, decimals,
                    fabs(y) < step / 2 ? 0.0 : y);
    }
    step = fmax(round_step(c->x1 - c->x0, (size_t)(c->width / 70)), 1);
    first = ceil(c->x0 / step);
    for (size_t i = 0; i < MOST_TICKS && (first + (double)i) * step <= c->x1; i++)
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"mid\">%.0f</text>",
                place_x(f, (first + (double)i) * step), bottom + 16, (first + (double)i) * step);
}

static void draw_line(FILE *out, const frame_t *f, const mbl_svg_series_t *s) {
    bool pen = false;
    fprintf(out, "<path class=\"line%s c%zu\" d=\"", s->style == MBL_SVG_FAINT ? " faint" : "",
            s->color % COLORS);
    for (size_t i = 0; i < s->n; i++) {
        bool there = isfinite(s->y[i]);
        if (there)
            fprintf(out, "%c%.1f %.1f", pen ? 'L' : 'M', place_x(f, s->x[i]), place_y(f, s->y[i]));
        if (there && !pen)
            fputs("h0", out); /* a value between gaps is a dot */
        pen = there;
    }
    fputs("\">", out);
    if (s->name) {
        fputs("<title>", out);
        mbl_html_text(out, s->name);
        fputs("</title>", out);
    }
    fputs("</path>", out);
}

static void draw_dots(FILE *out, const frame_t *f, const mbl_svg_series_t *s) {
    for (size_t i = 0; i < s->n; i++) {
        if (!isfinite(s->y[i]))
            continue;
        double x = place_x(f, s->x[i]), half = s->half && isfinite(s->half[i]) ? s->half[i] : 0;
        fprintf(out, "<g class=\"c%zu\">", s->color % COLORS);
        if (half > 0)
            fprintf(out, "<path class=\"line whisker\" d=\"M%.1f %.1fV%.1fm-3 0h6M%.1f %.1fh6\"/>", x,
                    place_y(f, s->y[i] - half), place_y(f, s->y[i] + half), x - 3,
                    place_y(f, s->y[i] - half));
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/><title>step %.0f: %.4f", x,
                place_y(f, s->y[i]), s->x[i], s->y[i]);
        if (half > 0)
            fprintf(out, " &#177; %.4f", half);
        fputs("</title></g>", out);
    }
}

/* Areas upon each other over the places of the first series. */
static void draw_stack(FILE *out, const frame_t *f, const mbl_svg_series_t *series, size_t n) {
    for (size_t k = n; k-- > 0;) { /* the highest first: the others cover it */
        const mbl_svg_series_t *s = &series[k];
        fprintf(out, "<path class=\"area c%zu\" d=\"M%.1f %.1f", s->color % COLORS, place_x(f, s->x[0]),
                place_y(f, 0));
        for (size_t i = 0; i < s->n; i++) {
            double sum = 0;
            for (size_t j = 0; j <= k; j++)
                sum += isfinite(series[j].y[i]) ? series[j].y[i] : 0;
            fprintf(out, "L%.1f %.1f", place_x(f, s->x[i]), place_y(f, sum));
        }
        fprintf(out, "V%.1fZ\"><title>", place_y(f, 0));
        mbl_html_text(out, s->name ? s->name : "");
        fputs("</title></path>", out);
    }
}

void mbl_svg_chart(FILE *out, const mbl_svg_chart_t *chart, const mbl_svg_series_t *series, size_t n) {
    mbl_svg_chart_t whole = *chart;
    if (!(whole.x1 > whole.x0))
        whole.x1 = whole.x0 + 1;
    frame_t frame = {.chart = &whole};
    find_ends(&frame, series, n);
    fprintf(out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", whole.width, whole.height);
    mbl_html_text(out, whole.title);
    fputs("\">", out);
    if (whole.stacked)
        draw_stack(out, &frame, series, n);
    draw_axes(out, &frame);
    for (size_t k = 0; !whole.stacked && k < n; k++)
        (series[k].style == MBL_SVG_DOTS ? draw_dots : draw_line)(out, &frame, &series[k]);
    fputs("</svg>\n", out);
}

/* The mean of what is finite in [from, to); NAN of nothing. */
static double mean_of(const double *y, size_t from, size_t to) {
    double sum = 0, n = 0;
    for (size_t i = from; i < to; i++)
        if (isfinite(y[i])) {
            sum += y[i];
            n++;
        }
    return n > 0 ? sum / n : NAN;
}

void mbl_svg_smooth(const double *y, size_t n, double *out) {
    size_t wide = n / 40 + (n > 8);
    for (size_t i = 0; i < n; i++)
        out[i] = mean_of(y, i > wide ? i - wide : 0, i + wide + 1 < n ? i + wide + 1 : n);
}

size_t mbl_svg_shorten(double *x, double *y, size_t n, size_t most) {
    size_t out = n < most ? n : most;
    for (size_t i = 0; i < out; i++) { /* from >= i: nothing that is still needed is lost */
        size_t from = i * n / out, to = (i + 1) * n / out;
        double place = (x[from] + x[to - 1]) / 2;
        y[i] = mean_of(y, from, to);
        x[i] = place;
    }
    return out;
}
