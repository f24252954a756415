/* Drawing by cairo and Pango. */
#include "data/canvas.h"

#include <pango/pangocairo.h>
#include <string.h>

mbl_status_t mbl_canvas_new(size_t width, size_t height, mbl_canvas_t *out) {
    MBL_REQUIRE(width > 0 && height > 0 && width < 32768 && height < 32768,
                "a drawing of %zu x %zu pixels: expected 1 to 32767 each way", width, height);
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width, (int)height);
    cairo_t *cairo = cairo_create(surface);
    cairo_surface_destroy(surface); /* the context keeps it */
    cairo_status_t status = cairo_status(cairo);
    if (status != CAIRO_STATUS_SUCCESS) {
        cairo_destroy(cairo);
        return MBL_FAIL(MBL_ERR_MEM, "a drawing of %zu x %zu pixels: %s", width, height,
                        cairo_status_to_string(status));
    }
    cairo_set_source_rgb(cairo, 1, 1, 1);
    cairo_paint(cairo);
    *out = (mbl_canvas_t){.cairo = cairo, .width = width, .height = height};
    return MBL_OK;
}

void mbl_canvas_free(mbl_canvas_t *canvas) {
    if (canvas->cairo)
        cairo_destroy(canvas->cairo);
    canvas->cairo = NULL;
}

static void lay_out(PangoLayout *layout, const char *text, const mbl_text_style_t *style) {
    PangoFontDescription *font = pango_font_description_from_string("Sans");
    pango_font_description_set_absolute_size(font, style->size * PANGO_SCALE);
    pango_layout_set_font_description(layout, font);
    pango_font_description_free(font);
    char *valid = g_utf8_make_valid(text, -1);
    pango_layout_set_text(layout, valid, -1);
    g_free(valid);
    if (style->width) {
        pango_layout_set_width(layout, (int)style->width * PANGO_SCALE);
        pango_layout_set_wrap(layout, PANGO_WRAP_WORD_CHAR);
    }
    if (style->max_lines) {
        pango_layout_set_height(layout, -(int)style->max_lines);
        pango_layout_set_ellipsize(layout, PANGO_ELLIPSIZE_END);
    }
}

size_t mbl_text_height(const char *text, const mbl_text_style_t *style) {
    PangoContext *context = pango_font_map_create_context(pango_cairo_font_map_get_default());
    PangoLayout *layout = pango_layout_new(context);
    int width, height;
    lay_out(layout, text, style);
    pango_layout_get_pixel_size(layout, &width, &height);
    g_object_unref(layout);
    g_object_unref(context);
    return (size_t)height;
}

void mbl_canvas_text(const mbl_canvas_t *canvas, const char *text, double left, double top,
                     const mbl_text_style_t *style) {
    PangoLayout *layout = pango_cairo_create_layout(canvas->cairo);
    lay_out(layout, text, style);
    cairo_set_source_rgb(canvas->cairo, style->ink[0], style->ink[1], style->ink[2]);
    cairo_move_to(canvas->cairo, left, top);
    pango_cairo_show_layout(canvas->cairo, layout);
    g_object_unref(layout);
}

/* A row of RGB bytes as cairo's 32-bit pixels, and back. */
static void pack(const uint8_t *rgb, size_t n, uint32_t *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = (uint32_t)rgb[3 * i] << 16 | (uint32_t)rgb[3 * i + 1] << 8 | rgb[3 * i + 2];
}

static void unpack(const uint32_t *in, size_t n, uint8_t *rgb) {
    for (size_t i = 0; i < n; i++) {
        rgb[3 * i] = (uint8_t)(in[i] >> 16);
        rgb[3 * i + 1] = (uint8_t)(in[i] >> 8);
        rgb[3 * i + 2] = (uint8_t)in[i];
    }
}

mbl_status_t mbl_canvas_image(const mbl_canvas_t *canvas, const mbl_image_t *image, size_t left, size_t top,
                              size_t scale) {
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)image->width, (int)image->height);
    if (cairo_surface_status(surface) != CAIRO_STATUS_SUCCESS) {
        cairo_surface_destroy(surface);
        return MBL_FAIL(MBL_ERR_MEM, "drawing an image of %zu x %zu pixels", image->width, image->height);
    }
    unsigned char *pixels = cairo_image_surface_get_data(surface);
    size_t stride = (size_t)cairo_image_surface_get_stride(surface);
    for (size_t y = 0; y < image->height; y++)
        pack(image->rgb + 3 * y * image->width, image->width, (uint32_t *)(void *)(pixels + y * stride));
    cairo_surface_mark_dirty(surface);
    cairo_t *cairo = canvas->cairo;
    cairo_save(cairo);
    cairo_translate(cairo, (double)left, (double)top);
    cairo_scale(cairo, (double)scale, (double)scale);
    cairo_set_source_surface(cairo, surface, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(cairo), CAIRO_FILTER_NEAREST);
    cairo_rectangle(cairo, 0, 0, (double)image->width, (double)image->height);
    cairo_fill(cairo);
    cairo_restore(cairo);
    cairo_surface_destroy(surface);
    return MBL_OK;
}

mbl_status_t mbl_canvas_finish(const mbl_canvas_t *canvas, mbl_image_t *out) {
    cairo_surface_t *surface = cairo_get_target(canvas->cairo);
    cairo_status_t status = cairo_status(canvas->cairo);
    if (status != CAIRO_STATUS_SUCCESS)
        return MBL_FAIL(MBL_ERR_IO, "drawing failed: %s", cairo_status_to_string(status));
    MBL_TRY(mbl_image_new(canvas->width, canvas->height, out));
    cairo_surface_flush(surface);
    const unsigned char *pixels = cairo_image_surface_get_data(surface);
    size_t stride = (size_t)cairo_image_surface_get_stride(surface);
    for (size_t y = 0; y < canvas->height; y++)
        unpack((const uint32_t *)(const void *)(pixels + y * stride), canvas->width,
               out->rgb + 3 * y * canvas->width);
    return MBL_OK;
}
