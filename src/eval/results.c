/* From scores to results, and to text. */
#include "eval/results.h"

#include "base/grid.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- computing ---- */

static mbl_status_t compute_pairs(const mbl_results_t *s, const mbl_compare_t *compare, size_t first,
                                  mbl_results_part_t *part) {
    const mbl_comparison_t *l = s->comparison;
    size_t k = l->engine->k, at = 0;
    for (size_t b = 1; b < l->n_candidates; b++)
        for (size_t a = 0; a < b; a++)
            MBL_TRY(mbl_compare_pair(compare, l->candidates[a].scores + first * k,
                                     l->candidates[b].scores + first * k, s->deviation,
                                     part->pairs + at++ * (k + 1)));
    return MBL_OK;
}

/* Of `images` rows from `first` on. */
static mbl_status_t compute_part(const mbl_results_t *s, size_t first, mbl_results_part_t *part) {
    const mbl_comparison_t *l = s->comparison;
    size_t k = l->engine->k;
    const mbl_compare_t compare = {.images = part->images,
                                   .k = k,
                                   .prompts = l->prompts,
                                   .prompt = l->prompt + first,
                                   .resamples = s->resamples,
                                   .seed = l->engine->config->eval.seed};
    MBL_ALLOC(part->scores, l->n_candidates * (k + 1));
    MBL_ALLOC(part->pairs, s->n_pairs * (k + 1));
    for (size_t i = 0; i < l->n_candidates; i++)
        MBL_TRY(mbl_compare_scores(&compare, l->candidates[i].scores + first * k, s->mean, s->deviation,
                                   part->scores + i * (k + 1)));
    return compute_pairs(s, &compare, first, part);
}

static mbl_status_t compute_parts(mbl_results_t *s) {
    const mbl_comparison_t *l = s->comparison;
    MBL_ALLOC(s->parts, l->n_sets + 1);
    for (size_t i = 0; i < l->n_sets; i++) {
        const mbl_comparison_set_t *set = &l->sets[i];
        s->parts[s->n_parts++] = (mbl_results_part_t){set->name, set->prompts, set->images, NULL, NULL};
        MBL_TRY(compute_part(s, set->first, &s->parts[i]));
    }
    if (l->n_sets == 1)
        return MBL_OK;
    s->parts[s->n_parts++] = (mbl_results_part_t){NULL, l->prompts, l->images, NULL, NULL};
    return compute_part(s, 0, &s->parts[l->n_sets]);
}

mbl_status_t mbl_results_new(const mbl_comparison_t *comparison, size_t resamples, mbl_results_t *out) {
    const mbl_score_t **tables;
    mbl_results_t s = {.comparison = comparison, .resamples = resamples};
    size_t n = comparison->n_candidates;
    s.n_pairs = n * (n - 1) / 2;
    MBL_ALLOC(tables, n);
    for (size_t i = 0; i < n; i++)
        tables[i] = comparison->candidates[i].scores;
    mbl_compare_scale(comparison->images, comparison->engine->k, tables, n, s.mean, s.deviation);
    mbl_free(tables);
    mbl_status_t status = compute_parts(&s);
    if (status == MBL_OK)
        *out = s;
    else
        mbl_results_free(&s);
    return status;
}

void mbl_results_free(mbl_results_t *s) {
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
    const mbl_results_t *results;
    bool markdown;
    FILE *out;
} page_t;

static const char *column_name(const mbl_results_t *s, size_t j) {
    const mbl_engine_t *engine = s->comparison->engine;
    return j < engine->k ? engine->config->rewards.items[j].name : "z-score";
}

/* Columns shown: a z-score of the base alone says nothing. */
static size_t columns(const mbl_results_t *s) {
    return s->comparison->engine->k + (s->comparison->n_candidates > 1);
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

static mbl_status_t print_scores(const page_t *page, const mbl_results_part_t *part) {
    static const char *const words[] = {"reward", "of", "mean", "95 % interval", "images", "N/A", "failed"};
    const mbl_results_t *s = page->results;
    size_t k = s->comparison->engine->k;
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(sizeof words / sizeof *words, 2, &grid));
    head(grid, words, sizeof words / sizeof *words);
    for (size_t j = 0; j < columns(s); j++)
        for (size_t i = 0; i < s->comparison->n_candidates; i++) {
            const mbl_compare_score_t *score = &part->scores[i * (k + 1) + j];
            mbl_grid_cell(grid, "%s", i == 0 || page->markdown ? column_name(s, j) : "");
            mbl_grid_cell(grid, "%s", s->comparison->candidates[i].name);
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
    for (size_t j = 0; j < columns(page->results); j++) {
        mbl_grid_cell(grid, "%s", column_name(page->results, j));
        interval_cells(grid, "%+.4f", pair[j].difference, 1);
        interval_cells(grid, "%.1f %%", pair[j].win_rate, 100);
        mbl_grid_cell(grid, "%zu", pair[j].won);
        mbl_grid_cell(grid, "%zu", pair[j].tied);
        mbl_grid_cell(grid, "%zu", pair[j].lost);
        mbl_grid_cell(grid, "%s", verdict(pair[j].difference));
    }
    return print_grid(page, grid);
}

static void print_title(const page_t *page, const mbl_results_part_t *part, const mbl_comparison_set_t *set) {
    size_t seeds = page->results->comparison->options.n_seeds;
    fprintf(page->out, "%s%s: %zu images of each", page->markdown ? "## " : "",
            part->name ? part->name : "all sets", part->images);
    fprintf(page->out, ", %zu prompt%s", part->prompts, part->prompts == 1 ? "" : "s");
    if (set && set->exist > set->prompts)
        fprintf(page->out, " (the first of %zu; --set eval.prompts=%zu takes all)", set->exist, set->exist);
    fprintf(page->out, ", %zu seed%s%s\n", seeds, seeds == 1 ? "" : "s", page->markdown ? "\n" : "");
}

static mbl_status_t print_part(const page_t *page, size_t i) {
    const mbl_results_t *s = page->results;
    const mbl_comparison_t *l = s->comparison;
    const mbl_results_part_t *part = &s->parts[i];
    size_t at = 0;
    print_title(page, part, part->name ? &l->sets[i] : NULL);
    MBL_TRY(print_scores(page, part));
    for (size_t b = 1; b < l->n_candidates; b++)
        for (size_t a = 0; a < b; a++) {
            fprintf(page->out, "\n%s%s against %s\n%s", page->markdown ? "### " : "", l->candidates[b].name,
                    l->candidates[a].name, page->markdown ? "\n" : "");
            MBL_TRY(print_pair(page, part->pairs + at++ * (l->engine->k + 1)));
        }
    fputs("\n", page->out);
    return MBL_OK;
}

/* Who is who. */
static void print_candidates(const page_t *page) {
    const mbl_comparison_t *l = page->results->comparison;
    const char *bullet = page->markdown ? "- " : "";
    fprintf(page->out, "%sbase: %s\n", bullet, l->engine->config->model.path);
    for (size_t i = 1; i < l->n_candidates; i++)
        if (l->candidates[i].is_lora)
            fprintf(page->out, "%s%s: %s\n", bullet, l->candidates[i].name, l->candidates[i].path);
        else
            fprintf(page->out, "%s%s: %s, step %zu, adapter %s\n", bullet, l->candidates[i].name,
                    l->candidates[i].path, l->candidates[i].step, l->options.adapter);
    fputs("\n", page->out);
}

mbl_status_t mbl_results_print(const mbl_results_t *s, bool markdown, FILE *out) {
    const page_t page = {s, markdown, out};
    print_candidates(&page);
    for (size_t i = 0; i < s->n_parts; i++)
        MBL_TRY(print_part(&page, i));
    fprintf(
        out,
        "Intervals: %zu resamples of the prompts, each with all its images; * from fewer than %d prompts, "
        "which says little.",
        s->resamples, FEW);
    if (s->comparison->n_candidates > 1)
        fputs(" Win rate: of images for the same prompt\nfrom the same noise, ties half. z-score: mean over "
              "the rewards of (score - mean) / deviation, both over all images.",
              out);
    fputs("\n", out);
    return ferror(out) ? MBL_FAIL(MBL_ERR_IO, "the results cannot be written") : MBL_OK;
}
