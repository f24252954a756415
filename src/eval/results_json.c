/* Results as JSON. */
#include "eval/results.h"

#include "io/jsonl.h"

/* Reals are null where there is no number. */
static void put_real(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, mbl_jsonl_real(value));
}

static void put_count(json_t *object, const char *key, size_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *score_json(const mbl_compare_score_t *score) {
    json_t *out = json_object();
    put_real(out, "mean", score->mean.value);
    put_real(out, "ci95", (score->mean.high - score->mean.low) / 2);
    put_real(out, "low", score->mean.low);
    put_real(out, "high", score->mean.high);
    put_count(out, "prompts", score->mean.prompts);
    put_count(out, "n", score->n);
    put_count(out, "na", score->na);
    put_count(out, "failed", score->failed);
    return out;
}

static json_t *pair_json(const mbl_compare_pair_t *pair) {
    json_t *out = json_object();
    put_real(out, "mean", pair->difference.value);
    put_real(out, "ci95", (pair->difference.high - pair->difference.low) / 2);
    put_real(out, "low", pair->difference.low);
    put_real(out, "high", pair->difference.high);
    put_real(out, "win_rate", pair->win_rate.value);
    put_real(out, "win_rate_low", pair->win_rate.low);
    put_real(out, "win_rate_high", pair->win_rate.high);
    put_count(out, "prompts", pair->difference.prompts);
    put_count(out, "n", pair->n);
    put_count(out, "won", pair->won);
    put_count(out, "tied", pair->tied);
    put_count(out, "lost", pair->lost);
    return out;
}

static const char *reward_name(const mbl_results_t *s, size_t j) {
    return s->comparison->engine->config->rewards.items[j].name;
}

static json_t *scores_json(const mbl_results_t *s, const mbl_compare_score_t *scores) {
    json_t *out = json_object();
    for (size_t j = 0; j < s->comparison->engine->k; j++)
        json_object_set_new(out, reward_name(s, j), score_json(&scores[j]));
    return out;
}

static json_t *pairs_json(const mbl_results_t *s, const mbl_compare_pair_t *pairs) {
    json_t *out = json_object();
    for (size_t j = 0; j < s->comparison->engine->k; j++)
        json_object_set_new(out, reward_name(s, j), pair_json(&pairs[j]));
    return out;
}

static json_t *part_json(const mbl_results_t *s, const mbl_results_part_t *part) {
    const mbl_comparison_t *l = s->comparison;
    size_t k = l->engine->k, at = 0;
    json_t *out = json_object(), *scores = json_array(), *pairs = json_array();
    if (part->name)
        json_object_set_new(out, "name", json_string(part->name));
    put_count(out, "prompts", part->prompts);
    put_count(out, "images", part->images);
    for (size_t i = 0; i < l->n_candidates; i++) {
        const mbl_compare_score_t *row = part->scores + i * (k + 1);
        json_array_append_new(scores, json_pack("{s:s,s:o,s:o}", "of", l->candidates[i].name, "rewards",
                                                scores_json(s, row), "z_score", score_json(&row[k])));
    }
    for (size_t b = 1; b < l->n_candidates; b++)
        for (size_t a = 0; a < b; a++) {
            const mbl_compare_pair_t *row = part->pairs + at++ * (k + 1);
            json_array_append_new(pairs, json_pack("{s:s,s:s,s:o,s:o}", "of", l->candidates[b].name,
                                                   "against", l->candidates[a].name, "rewards",
                                                   pairs_json(s, row), "z_score", pair_json(&row[k])));
        }
    json_object_set_new(out, "scores", scores);
    json_object_set_new(out, "pairs", pairs);
    return out;
}

static json_t *candidates_json(const mbl_comparison_t *l) {
    json_t *out = json_array();
    for (size_t i = 0; i < l->n_candidates; i++) {
        const mbl_candidate_t *e = &l->candidates[i];
        json_array_append_new(out, e->is_lora ? json_pack("{s:s,s:s}", "name", e->name, "lora", e->path)
                                   : e->path  ? json_pack("{s:s,s:s,s:I}", "name", e->name, "file", e->path,
                                                          "step", (json_int_t)e->step)
                                              : json_pack("{s:s}", "name", e->name));
    }
    return out;
}

static json_t *scale_json(const mbl_results_t *s) {
    json_t *out = json_object();
    for (size_t j = 0; j < s->comparison->engine->k; j++)
        json_object_set_new(out, reward_name(s, j),
                            json_pack("{s:o,s:o}", "mean", mbl_jsonl_real(s->mean[j]), "deviation",
                                      mbl_jsonl_real(s->deviation[j])));
    return out;
}

mbl_status_t mbl_results_json(const mbl_results_t *s, json_t **out) {
    const mbl_comparison_t *l = s->comparison;
    const mbl_results_part_t *all = &s->parts[s->n_parts - 1];
    json_t *root = json_object(), *seeds = json_array(), *sets = json_array();
    json_object_set_new(root, "base", scores_json(s, all->scores));
    if (l->n_candidates == 2) { /* the short form of the most frequent question */
        json_object_set_new(root, "trained", scores_json(s, all->scores + l->engine->k + 1));
        json_object_set_new(root, "difference", pairs_json(s, all->pairs));
    }
    json_object_set_new(root, "candidates", candidates_json(l));
    json_object_set_new(root, "adapter", json_string(l->options.adapter));
    for (size_t i = 0; i < l->options.n_seeds; i++)
        json_array_append_new(seeds, json_integer((json_int_t)l->options.seeds[i]));
    json_object_set_new(root, "seeds", seeds);
    put_count(root, "resamples", s->resamples);
    json_object_set_new(root, "z_scale", scale_json(s));
    for (size_t i = 0; i < l->n_sets; i++)
        json_array_append_new(sets, part_json(s, &s->parts[i]));
    json_object_set_new(root, "sets", sets);
    if (json_object_set_new(root, "all", part_json(s, all)) != 0) {
        json_decref(root);
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the results as JSON, or a name is not UTF-8");
    }
    *out = root;
    return MBL_OK;
}
