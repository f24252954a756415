/* A run on more and more GPUs, as a table. */
#include "base/grid.h"
#include "cli/plan/plan.h"

#include <stdio.h>

mbl_status_t mbl_plan_print_points(const mbl_plan_view_t *view, const mbl_plan_point_t *point, size_t n) {
    static const char *const head[] = {
        "GPUs", "images of one", "at once", "seconds at least (bound)", "seconds (estimate)", "tails",
        "gaps", "messages",      "exposed", "images/s (estimate)",      "of ideal (estimate)"};
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    for (size_t i = 0; i < n; i++) {
        const mbl_plan_point_t *p = &point[i];
        const double ideal = point[0].time.seconds * (double)point[0].ranks / (double)p->ranks;
        const double seconds[] = {p->time.bound, p->time.seconds,  p->time.tails,
                                  p->time.gaps,  p->time.messages, p->time.exposed};
        mbl_grid_cell(grid, "%zu", p->ranks);
        mbl_grid_cell(grid, "%zu", (p->images + p->ranks - 1) / p->ranks);
        mbl_grid_cell(grid, "%zu / %zu", p->rollout_batch, p->train_batch);
        for (size_t j = 0; j < sizeof seconds / sizeof *seconds; j++)
            mbl_grid_cell(grid, "%.3g", seconds[j]);
        mbl_grid_cell(grid, "%.3g", (double)p->images / p->time.seconds);
        mbl_grid_cell(grid, "%.0f %%", 100 * ideal / p->time.seconds);
    }
    printf("an epoch on %s, hosts of %d; at once: images of a rollout's and of training's micro-batch:\n\n",
           view->gpu[0]->title, MBL_PLAN_HOST);
    mbl_status_t status = mbl_grid_print(grid, view->markdown, stdout);
    mbl_grid_free(grid);
    MBL_TRY(status);
    mbl_plan_print_sources();
    return fflush(stdout) == 0 ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "plan: standard output cannot be written");
}
