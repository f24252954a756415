/* The report of a run: the page and the PNG files. */
#include "report/report.h"

#include "report/html.h"
#include "report/page.h"
#include "report/plots.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "run/rundir.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static mbl_status_t write_page(FILE *out, const mbl_run_data_t *data) {
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          out);
    mbl_html_text(out, data->title);
    fprintf(out, " - marble</title>\n<style>\n%s</style></head>\n<body><main>\n", mbl_page_style);
    mbl_page_summary(out, data);
    MBL_TRY(mbl_page_samples(out, data));
    MBL_TRY(mbl_page_curves(out, data));
    mbl_page_cost(out, data);
    mbl_page_end(out, data);
    fputs("</main></body></html>\n", out);
    return MBL_OK;
}

static mbl_status_t put_page(const mbl_run_data_t *data, const char *path) {
    mbl_file_writer_t writer;
    MBL_TRY(mbl_file_begin(path, &writer));
    mbl_status_t status = write_page(writer.file, data);
    if (status == MBL_OK)
        return mbl_file_commit(&writer);
    mbl_file_discard(&writer);
    return status;
}

mbl_status_t mbl_report_write(const char *folder, const char *out, char *path, size_t size) {
    char page[PATH_MAX], plots[PATH_MAX];
    mbl_run_data_t data;
    MBL_TRY(mbl_rundir_join(folder, "report.html", page, sizeof page));
    MBL_TRY(mbl_rundir_join(folder, "report", plots, sizeof plots));
    mbl_status_t status = mbl_run_data_read(folder, &data);
    if (status == MBL_OK)
        status = put_page(&data, out ? out : page);
    if (status == MBL_OK)
        status = mbl_folder_make(plots);
    if (status == MBL_OK)
        status = mbl_plots_write(&data, plots);
    if (status == MBL_OK && path)
        snprintf(path, size, "%s", out ? out : page);
    mbl_run_data_free(&data);
    return status;
}
