/* From scores to standings, and to text. */
#include "eval/standings.h"

#include "base/grid.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- computing ---- */

static mbl_status_t compute_pairs(const mbl_standings_t *s, const mbl_compare_t *compare, size_t first,
                                  mbl_standings_part_t *part) {
    const mbl_lineup_t *l = s->lineup;
    size_t k = l->engine->k, at = 0;
    for (size_t b = 1; b < l->n_entrants; b++)
        for (size_t a = 0; a < b; a++)
            MBL_TRY(mbl_compare_pair(compare, l->entrants[a].scores + first * k,
                                     l->entrants[b].scores + first * k, s->deviation,
                                     part->pairs + at++ * (k + 1)));
    return MBL_OK;
}

/* Of `pictures` rows from `first` on. */
static mbl_status_t compute_part(const mbl_standings_t *s, size_t first, mbl_standings_part_t *part) {
    const mbl_lineup_t *l = s->lineup;
    size_t k = l->engine->k;
    const mbl_compare_t compare = {.pictures = part->pictures,
                                   .k = k,
                                   .prompts = l->prompts,
                                   .prompt = l->prompt + first,
                                   .resamples = s->resamples,
                                   .seed = l->engine->config->eval.seed};
    MBL_ALLOC(part->scores, l->n_entrants * (k + 1));
    MBL_ALLOC(part->pairs, s->n_pairs * (k + 1));
    for (size_t i = 0; i < l->n_entrants; i++)
        MBL_TRY(mbl_compare_scores(&compare, l->entrants[i].scores + first * k, s->mean, s->deviation,
                                   part->scores + i * (k + 1)));
    return compute_pairs(s, &compare, first, part);
}

static mbl_status_t compute_parts(mbl_standings_t *s) {
    const mbl_lineup_t *l = s->lineup;
    MBL_ALLOC(s->parts, l->n_sets + 1);
    for (size_t i = 0; i < l->n_sets; i++) {
        const mbl_lineup_set_t *set = &l->sets[i];
        s->parts[s->n_parts++] = (mbl_standings_part_t){set->name, set->prompts, set->pictures, NULL, NULL};
        MBL_TRY(compute_part(s, set->first, &s->parts[i]));
    }
    if (l->n_sets == 1)
        return MBL_OK;
    s->parts[s->n_parts++] = (mbl_standings_part_t){NULL, l->prompts, l->pictures, NULL, NULL};
    return compute_part(s, 0, &s->parts[l->n_sets]);
}

mbl_status_t mbl_standings_new(const mbl_lineup_t *lineup, size_t resamples, mbl_standings_t *out) {
    const mbl_score_t **tables;
    mbl_standings_t s = {.lineup = lineup, .resamples = resamples};
    size_t n = lineup->n_entrants;
    s.n_pairs = n * (n - 1) / 2;
    MBL_ALLOC(tables, n);
    for (size_t i = 0; i < n; i++)
        tables[i] = lineup->entrants[i].scores;
    mbl_compare_scale(lineup->pictures, lineup->engine->k, tables, n, s.mean, s.deviation);
    mbl_free(tables);
    mbl_status_t status = compute_parts(&s);
    if (status == MBL_OK)
        *out = s;
    else
        mbl_standings_free(&s);
    return status;
}

void mbl_standings_free(mbl_standings_t *s) {
    for (size_t i = 0; i < s->n_parts; i++) {
        mbl_free(s->parts[i].scores);
        mbl_free(s->parts[i].pairs);
    }
    mbl_free(s->parts);
    memset(s, 0, sizeof *s);
}

/* ---- text ---- */

enum { FEW = 8 }; /* prompts: an interval from fewer is marked */

typedef struct {
    const mbl_standings_t *standings;
    bool markdown;
    FILE *out;
} page_t;

static const char *column_name(const mbl_standings_t *s, size_t j) {
    const mbl_engine_t *engine = s->lineup->engine;
    return j < engine->k ? engine->config->rewards.items[j].name : "z-score";
}

/* Columns shown: a z-score of the base alone says nothing. */
static size_t columns(const mbl_standings_t *s) {
    return s->lineup->engine->k + (s->lineup->n_entrants > 1);
}

static void number_cell(mbl_grid_t *grid, const char *format, double value) {
    char text[64] = "-";
    if (!isnan(value))
        snprintf(text, sizeof text, format, value);
    mbl_grid_cell(grid, "%s", text);
}

static void interval_cells(mbl_grid_t *grid, const char *format, mbl_interval_t interval, double scale) {
    char low[32], high[32];
    number_cell(grid, format, scale * interval.value);
    snprintf(low, sizeof low, format, scale * interval.low);
    snprintf(high, sizeof high, format, scale * interval.high);
    if (isnan(interval.low))
        mbl_grid_cell(grid, "-");
    else
        mbl_grid_cell(grid, "%s .. %s%s", low, high, interval.prompts < FEW ? "*" : "");
}

static void head(mbl_grid_t *grid, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++)
        mbl_grid_cell(grid, "%s", words[i]);
}

static mbl_status_t print_grid(const page_t *page, mbl_grid_t *grid) {
    mbl_status_t status = mbl_grid_print(grid, page->markdown, page->out);
    mbl_grid_free(grid);
    return status;
}

static mbl_status_t print_scores(const page_t *page, const mbl_standings_part_t *part) {
    static const char *const words[] = {"reward", "of", "mean", "95 % interval", "pictures", "N/A", "failed"};
    const mbl_standings_t *s = page->standings;
    size_t k = s->lineup->engine->k;
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(sizeof words / sizeof *words, 2, &grid));
    head(grid, words, sizeof words / sizeof *words);
    for (size_t j = 0; j < columns(s); j++)
        for (size_t i = 0; i < s->lineup->n_entrants; i++) {
            const mbl_compare_score_t *score = &part->scores[i * (k + 1) + j];
            mbl_grid_cell(grid, "%s", i == 0 || page->markdown ? column_name(s, j) : "");
            mbl_grid_cell(grid, "%s", s->lineup->entrants[i].name);
            interval_cells(grid, j < k ? "%.4f" : "%+.4f", score->mean, 1);
            mbl_grid_cell(grid, "%zu", score->n);
            mbl_grid_cell(grid, "%zu", score->na);
            mbl_grid_cell(grid, "%zu", score->failed);
        }
    return print_grid(page, grid);
}

static const char *verdict(mbl_interval_t difference) {
    return isnan(difference.low) ? ""
           : difference.low > 0  ? "better"
           : difference.high < 0 ? "worse"
                                 : "unclear";
}

static mbl_status_t print_pair(const page_t *page, const mbl_compare_pair_t *pair) {
    static const char *const words[] = {"reward", "difference", "95 % interval", "win rate", "95 % interval",
                                        "won",    "tied",       "lost",          "verdict"};
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(sizeof words / sizeof *words, 1, &grid));
    head(grid, words, sizeof words / sizeof *words);
    for (size_t j = 0; j < columns(page->standings); j++) {
        mbl_grid_cell(grid, "%s", column_name(page->standings, j));
        interval_cells(grid, "%+.4f", pair[j].difference, 1);
        interval_cells(grid, "%.1f %%", pair[j].win_rate, 100);
        mbl_grid_cell(grid, "%zu", pair[j].won);
        mbl_grid_cell(grid, "%zu", pair[j].tied);
        mbl_grid_cell(grid, "%zu", pair[j].lost);
        mbl_grid_cell(grid, "%s", verdict(pair[j].difference));
    }
    return print_grid(page, grid);
}

static void print_title(const page_t *page, const mbl_standings_part_t *part, const mbl_lineup_set_t *set) {
    size_t seeds = page->standings->lineup->options.n_seeds;
    fprintf(page->out, "%s%s: %zu pictures of each", page->markdown ? "## " : "",
            part->name ? part->name : "all sets", part->pictures);
    fprintf(page->out, ", %zu prompt%s", part->prompts, part->prompts == 1 ? "" : "s");
    if (set && set->exist > set->prompts)
        fprintf(page->out, " (the first of %zu; --set eval.prompts=%zu takes all)", set->exist, set->exist);
    fprintf(page->out, ", %zu seed%s%s\n", seeds, seeds == 1 ? "" : "s", page->markdown ? "\n" : "");
}

static mbl_status_t print_part(const page_t *page, size_t i) {
    const mbl_standings_t *s = page->standings;
    const mbl_lineup_t *l = s->lineup;
    const mbl_standings_part_t *part = &s->parts[i];
    size_t at = 0;
    print_title(page, part, part->name ? &l->sets[i] : NULL);
    MBL_TRY(print_scores(page, part));
    for (size_t b = 1; b < l->n_entrants; b++)
        for (size_t a = 0; a < b; a++) {
            fprintf(page->out, "\n%s%s against %s\n%s", page->markdown ? "### " : "", l->entrants[b].name,
                    l->entrants[a].name, page->markdown ? "\n" : "");
            MBL_TRY(print_pair(page, part->pairs + at++ * (l->engine->k + 1)));
        }
    fputs("\n", page->out);
    return MBL_OK;
}

/* Who is who. */
static void print_entrants(const page_t *page) {
    const mbl_lineup_t *l = page->standings->lineup;
    const char *bullet = page->markdown ? "- " : "";
    fprintf(page->out, "%sbase: %s\n", bullet, l->engine->config->model.path);
    for (size_t i = 1; i < l->n_entrants; i++)
        fprintf(page->out, "%s%s: %s, step %zu, adapter %s\n", bullet, l->entrants[i].name,
                l->entrants[i].path, l->entrants[i].step, l->options.adapter);
    fputs("\n", page->out);
}

mbl_status_t mbl_standings_print(const mbl_standings_t *s, bool markdown, FILE *out) {
    const page_t page = {s, markdown, out};
    print_entrants(&page);
    for (size_t i = 0; i < s->n_parts; i++)
        MBL_TRY(print_part(&page, i));
    fprintf(
        out,
        "Intervals: %zu resamples of the prompts, each with all its pictures; * from fewer than %d prompts, "
        "which says little.",
        s->resamples, FEW);
    if (s->lineup->n_entrants > 1)
        fputs(
            " Win rate: of pictures for the same prompt\nfrom the same noise, ties half. z-score: mean over "
            "the rewards of (score - mean) / deviation, both over all pictures.",
            out);
    fputs("\n", out);
    return ferror(out) ? MBL_FAIL(MBL_ERR_IO, "the standings cannot be written") : MBL_OK;
}
