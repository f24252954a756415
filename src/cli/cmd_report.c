/* marble report: the report of a run. */
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "report/report.h"

#include <limits.h>
#include <stdio.h>

static const char about[] =
    "Writes what became of the run in DIR as one page of HTML that needs nothing else: rewards before and\n"
    "after with their intervals, samples of the same prompts, curves, weights, cosines, cost, "
    "configuration.\n"
    "Its charts are written as PNG files too, into DIR/report. Every run of marble train that comes to its "
    "end\n"
    "writes the same by itself.\n"
    "    marble report runs/run\n"
    "    marble report runs/run --out report-of-run.html";

int mbl_cmd_report(int argc, char **argv) {
    const char *out = NULL;
    char path[PATH_MAX];
    bool helped = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_arg_t args[] = {
        {"out", MBL_ARG_TEXT, &out, "FILE", "the page; unless given DIR/report.html", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"report", "DIR", about, args, sizeof args / sizeof *args, 1, 1};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = mbl_report_write(rest.items[0], out, path, sizeof path);
    if (status == MBL_OK)
        printf("%s\n", path);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
