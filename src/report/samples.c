/* Samples before and after: the first and the last sheet of the run, embedded once each and cut by the
 * browser, since both show the same prompts from the same noise. */
#include "report/html.h"
#include "report/page.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/image.h"
#include "run/rundir.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 6 << 20, LARGEST = 1 << 28, SHOWN = 12, SIDE = 140 };

typedef struct {
    size_t step, width, height; /* of the sheet, as it is embedded */
    json_t *about;              /* samples/step-N.json, or NULL */
    uint8_t *bytes;
    size_t size;
    const char *type;
    double scale; /* its pixels over those of the file */
} sheet_t;

static bool step_of(const char *name, size_t *step) {
    char again[64];
    if (sscanf(name, "step-%zu.png", step) != 1)
        return false;
    snprintf(again, sizeof again, "step-%06zu.png", *step);
    return strcmp(again, name) == 0;
}

/* The first and the last sheet; false unless there are two. */
static bool find_sheets(const char *folder, size_t *first, size_t *last) {
    const struct dirent *entry;
    bool found = false;
    DIR *dir = opendir(folder);
    while (dir && (entry = readdir(dir))) {
        size_t step;
        if (!step_of(entry->d_name, &step))
            continue;
        *first = found && *first < step ? *first : step;
        *last = found && *last > step ? *last : step;
        found = true;
    }
    if (dir)
        closedir(dir);
    return found && *first < *last;
}

static mbl_status_t embed_smaller(const mbl_image_t *image, sheet_t *sheet) {
    size_t factor = 2, room = 0;
    mbl_image_t small;
    while (image->width / factor > 2048)
        factor++;
    mbl_free(sheet->bytes);
    sheet->bytes = NULL;
    MBL_TRY(mbl_image_shrink(image, factor, &small));
    mbl_status_t status = mbl_image_encode(&small, MBL_IMAGE_JPEG, &sheet->bytes, &room, &sheet->size);
    sheet->type = "image/jpeg";
    sheet->scale = 1 / (double)factor;
    sheet->width = small.width;
    sheet->height = small.height;
    mbl_image_free(&small);
    return status;
}

static mbl_status_t read_sheet(const char *folder, size_t step, sheet_t *out) {
    char path[PATH_MAX], name[64], *bytes;
    mbl_image_t image;
    *out = (sheet_t){.step = step, .type = "image/png", .scale = 1};
    snprintf(name, sizeof name, "step-%06zu.png", step);
    MBL_TRY(mbl_rundir_join(folder, name, path, sizeof path));
    MBL_TRY(mbl_file_read(path, LARGEST, &bytes, &out->size));
    out->bytes = (uint8_t *)bytes;
    MBL_TRY(mbl_image_read_png(path, &image));
    out->width = image.width;
    out->height = image.height;
    mbl_status_t status = out->size > MOST_BYTES ? embed_smaller(&image, out) : MBL_OK;
    mbl_image_free(&image);
    MBL_TRY(status);
    snprintf(name, sizeof name, "step-%06zu.json", step);
    return mbl_json_read_in(folder, name, true, &out->about);
}

static void free_sheet(sheet_t *sheet) {
    json_decref(sheet->about);
    mbl_free(sheet->bytes);
}

/* ---- image by image ---- */

static double cell(const sheet_t *sheet, const char *key) {
    return json_number_value(json_object_get(json_object_get(sheet->about, "cells"), key));
}

static const json_t *image_at(const sheet_t *sheet, size_t i) {
    return json_array_get(json_object_get(sheet->about, "images"), i);
}

static size_t columns_of(const sheet_t *sheet) {
    double columns = cell(sheet, "columns");
    return columns >= 1 && columns <= 1e6 ? (size_t)columns : 1;
}

static void write_image(FILE *out, const sheet_t *sheet, const char *class, size_t i) {
    double width = cell(sheet, "width") * sheet->scale, scale = width > 0 ? SIDE / width : 1;
    double k = scale * sheet->scale;
    size_t columns = columns_of(sheet);
    double left = cell(sheet, "left") + (double)(i % columns) * cell(sheet, "step_x");
    double top = cell(sheet, "top") + (double)(i / columns) * cell(sheet, "step_y");
    fprintf(out,
            "<div class=\"image %s\" role=\"img\" aria-label=\"step %zu\" title=\"step %zu\" "
            "style=\"width:%dpx;height:%.0fpx;"
            "background-size:%.1fpx %.1fpx;background-position:%.1fpx %.1fpx\"></div>",
            class, sheet->step, sheet->step, SIDE, cell(sheet, "height") * k, (double)sheet->width * scale,
            (double)sheet->height * scale, -left * k, -top * k);
}

static void write_scores(FILE *out, const mbl_run_data_t *data, const json_t *before, const json_t *after) {
    fputs("<div class=\"scores\">", out);
    for (size_t k = 0; k < data->k; k++) {
        const json_t *a = json_object_get(json_object_get(before, "scores"), data->names[k]);
        const json_t *b = json_object_get(json_object_get(after, "scores"), data->names[k]);
        double change = round(100 * json_number_value(b)) - round(100 * json_number_value(a)); /* as shown */
        if (!json_is_number(a) || !json_is_number(b))
            continue;
        fputs("<span>", out);
        mbl_html_text(out, data->names[k]);
        fprintf(out, " %.2f &#8594; <span class=\"%s\">%.2f</span></span>", json_number_value(a),
                change > 0   ? "better"
                : change < 0 ? "worse"
                             : "same",
                json_number_value(b));
    }
    fputs("</div>", out);
}

static void write_pairs(FILE *out, const mbl_run_data_t *data, const sheet_t *before, const sheet_t *after) {
    size_t a = json_array_size(json_object_get(before->about, "images"));
    size_t b = json_array_size(json_object_get(after->about, "images")), n = a < b ? a : b;
    fputs("<div class=\"pairs\">\n", out);
    for (size_t i = 0; i < n; i++) {
        const char *prompt = json_string_value(json_object_get(image_at(before, i), "prompt"));
        if (i == SHOWN)
            fprintf(out, "</div><details><summary>%zu more</summary><div class=\"pairs\">\n", n - i);
        fputs("<div class=\"card pair\"><figure>", out);
        write_image(out, before, "before", i);
        write_image(out, after, "after", i);
        fputs("</figure><p>", out);
        mbl_html_text(out, prompt ? prompt : "");
        fputs("</p>", out);
        write_scores(out, data, image_at(before, i), image_at(after, i));
        fputs("</div>\n", out);
    }
    fputs(n > SHOWN ? "</div></details>\n" : "</div>\n", out);
}

/* Runs of older versions do not say where the images lie: their sheets, whole. */
static void write_whole(FILE *out, const sheet_t *sheet) {
    fprintf(
        out,
        "<div class=\"card\"><h3>step %zu</h3><img alt=\"samples of step %zu\" style=\"width:100%%\" src=\"",
        sheet->step, sheet->step);
    mbl_html_data(out, sheet->type, sheet->bytes, sheet->size);
    fputs("\"></div>\n", out);
}

static void write_rule(FILE *out, const char *class, const sheet_t *sheet) {
    fprintf(out, ".%s{background-image:url(", class);
    mbl_html_data(out, sheet->type, sheet->bytes, sheet->size);
    fputs(")}\n", out);
}

static void write_both(FILE *out, const mbl_run_data_t *data, const sheet_t *before, const sheet_t *after) {
    fprintf(out,
            "<section><h2>Samples</h2><p>The same held-out prompts from the same noise: left step %zu, right "
            "step %zu.</p>\n",
            before->step, after->step);
    if (before->about && after->about) {
        fputs("<style>", out);
        write_rule(out, "before", before);
        write_rule(out, "after", after);
        fputs("</style>\n", out);
        write_pairs(out, data, before, after);
    } else {
        write_whole(out, before);
        write_whole(out, after);
    }
    fputs("</section>\n", out);
}

mbl_status_t mbl_page_samples(FILE *out, const mbl_run_data_t *data) {
    char folder[PATH_MAX];
    size_t first = 0, last = 0;
    sheet_t before = {.step = 0}, after = {.step = 0};
    MBL_TRY(mbl_rundir_join(data->folder, "samples", folder, sizeof folder));
    if (!find_sheets(folder, &first, &last))
        return MBL_OK;
    mbl_status_t status = read_sheet(folder, first, &before);
    if (status == MBL_OK)
        status = read_sheet(folder, last, &after);
    if (status == MBL_OK)
        write_both(out, data, &before, &after);
    free_sheet(&before);
    free_sheet(&after);
    return status;
}
