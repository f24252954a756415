/* The list `rewards` of a configuration: {name, type, weight, min, group, on_failure, options}. */
#include "config/table.h"

#include "base/mem.h"
#include "base/suggest.h"
#include "reward/applies.h"
#include "rl/qp.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const item_keys[] = {"name",  "type",       "weight",    "min",
                                        "group", "on_failure", "min_valid", "monitor",
                                        "range", "applies_to", "options"};
static const char *const item_help[] = {
    "what metrics and tables call it: up to 32 letters, digits, _ or -",
    "the scorer, one of those below [default: the name]",
    "its weight in the sum of method weighted_sum, its priority with the others [default: 1]",
    "its mean is kept at or above this, instead of being improved (see constraint)",
    "rewards of one group share one objective, the mean of their gradients",
    ("skip: an image it fails on counts for the other rewards only; stop: the run ends with a checkpoint "
     "[default: skip]"),
    "share of a prompt's images that must have a score for any of them to count [default: 0]",
    "true: scored and logged, not trained, and never a reason to end the run [default: false]",
    "[low, high] in which its scores lie; others are counted and an alarm [default: the scorer's]",
    ("the prompts it is about: all, quoted (text in \"...\"), metadata.KEY (their metadata has the key) or "
     "regex:PATTERN (of PCRE2, anywhere in the text); it has no score for the others, and no server is asked "
     "about them [default: all]"),
    "what the scorer takes, as {key: value}; its keys may also stand beside these"};
enum { N_KEYS = sizeof item_keys / sizeof *item_keys, MAX_NAME = 32 };

static const mbl_field_t weight_field = {.kind = MBL_FIELD_NUMBER,
                                         .offset = offsetof(mbl_reward_spec_t, weight),
                                         .fallback = "1",
                                         .high = 1e6,
                                         .ends = MBL_FIELD_ABOVE};
static const mbl_field_t min_field = {.kind = MBL_FIELD_NUMBER,
                                      .offset = offsetof(mbl_reward_spec_t, min),
                                      .fallback = "0.8",
                                      .low = -1e9,
                                      .high = 1e9};
static const mbl_field_t on_failure_field = {.kind = MBL_FIELD_CHOICE,
                                             .offset = offsetof(mbl_reward_spec_t, on_failure),
                                             .fallback = "skip",
                                             .words = mbl_config_on_failure_words};

static const mbl_field_t min_valid_field = {
    .kind = MBL_FIELD_NUMBER, .offset = offsetof(mbl_reward_spec_t, min_valid), .fallback = "0.5", .high = 1};
static const char *const monitor_words[] = {"false", "true", NULL};
static const mbl_field_t monitor_field = {.kind = MBL_FIELD_CHOICE,
                                          .offset = offsetof(mbl_reward_spec_t, use),
                                          .fallback = "false",
                                          .words = monitor_words};

const char *mbl_config_reward_key(size_t i, const char **help) {
    if (i >= N_KEYS)
        return NULL;
    *help = item_help[i];
    return item_keys[i];
}

static void free_specs(mbl_reward_spec_t *specs, size_t n) {
    for (size_t i = 0; i < n; i++) {
        mbl_free((void *)specs[i].name);
        mbl_free((void *)specs[i].type);
        mbl_free((void *)specs[i].group);
        mbl_free((void *)specs[i].applies_to);
        mbl_free((void *)specs[i].options);
    }
    mbl_free(specs);
}

void mbl_config_free_rewards(mbl_config_t *config) {
    free_specs(config->rewards.items, config->rewards.count);
    config->rewards.items = NULL;
    config->rewards.count = 0;
}

static json_t *scalar_json(const mbl_yaml_node_t *node) {
    char *end;
    if (node->quoted)
        return json_string(node->text);
    if (!node->text[0] || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0)
        return json_null();
    if (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0)
        return json_boolean(node->text[0] == 't');
    if (strspn(node->text, "+-.0123456789eE") == strlen(node->text)) {
        errno = 0;
        long long whole = strtoll(node->text, &end, 10);
        if (*end == 0 && errno == 0)
            return json_integer(whole);
        double value = strtod(node->text, &end);
        if (*end == 0 && isfinite(value))
            return json_real(value);
    }
    return json_string(node->text);
}

/* A tree as JSON; NULL without memory. Depth is bounded by the reader. */
json_t *mbl_config_node_json(const mbl_yaml_node_t *node) {
    if (node->kind == MBL_YAML_SCALAR)
        return scalar_json(node);
    json_t *out = node->kind == MBL_YAML_LIST ? json_array() : json_object();
    for (const mbl_yaml_node_t *child = node->first; child && out; child = child->next) {
        json_t *value = mbl_config_node_json(child);
        int failed = node->kind == MBL_YAML_LIST ? json_array_append_new(out, value)
                                                 : json_object_set_new(out, child->key, value);
        if (failed) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static bool printable_tree(const mbl_yaml_node_t *node) {
    if ((node->key && !mbl_config_printable(node->key)) || (node->text && !mbl_config_printable(node->text)))
        return false;
    for (const mbl_yaml_node_t *child = node->first; child; child = child->next)
        if (!printable_tree(child))
            return false;
    return true;
}

static void unknown_scorer_key(const mbl_scorer_t *scorer, const char *key, const mbl_yaml_node_t *node,
                               mbl_config_problems_t *problems) {
    char hint[MBL_SUGGESTED];
    const char *best = NULL;
    size_t distance = 0;
    for (const mbl_scorer_key_t *own = scorer->keys; own->name; own++)
        mbl_suggest(node->key, own->name, &best, &distance);
    mbl_config_problem(problems, node->key_line,
                       "%s: no key of %s%s; marble train --help-config rewards lists them", key, scorer->name,
                       mbl_suggested("", best, hint));
}

/* Keys of the scorer's table are checked by it; a scorer without one checks what it is given. */
static mbl_status_t read_options(json_t *options, const mbl_scorer_t *scorer, const char *key,
                                 const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char shown[80], child_key[256];
    if (node->kind != MBL_YAML_MAP || (!(scorer && scorer->keys) && !printable_tree(node))) {
        mbl_config_problem(
            problems, node->line, "%s: %s is not a mapping; expected options such as {quality: 90}", key,
            node->kind == MBL_YAML_MAP ? "text with control characters" : mbl_config_shown(node, shown));
        return MBL_OK;
    }
    for (const mbl_yaml_node_t *child = node->first; child; child = child->next) {
        const mbl_scorer_key_t *known = scorer ? mbl_scorer_key(scorer, child->key) : NULL;
        snprintf(child_key, sizeof child_key, "%s.%.80s", key, child->key);
        if (known)
            MBL_TRY(mbl_config_read_scorer_key(options, known, child_key, child, problems));
        else if (scorer && scorer->keys)
            unknown_scorer_key(scorer, child_key, child, problems);
        else if (json_object_set_new(options, child->key, mbl_config_node_json(child)))
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %s", child_key);
    }
    return MBL_OK;
}

/* A name or type: letters, digits, _ and -, since it becomes a key of the metrics. */
static mbl_status_t read_name(const char **place, const char *key, const mbl_yaml_node_t *node,
                              mbl_config_problems_t *problems) {
    char shown[80];
    const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t length = node->kind == MBL_YAML_SCALAR ? strlen(node->text) : 0;
    if (length == 0 || length > MAX_NAME || strspn(node->text, allowed) != length) {
        mbl_config_problem(
            problems, node->line,
            "%s: %s is not a name; expected up to %d letters, digits, _ or -, for instance ocr", key,
            mbl_config_shown(node, shown), MAX_NAME);
        return MBL_OK;
    }
    *place = mbl_strdup(node->text);
    return *place ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %s", key);
}

/* The first scorer that takes a key, NULL: none does. */
static const mbl_scorer_t *taker_of(const char *name) {
    const mbl_scorer_t *scorer;
    for (size_t i = 0; (scorer = mbl_scorer_at(i)); i++)
        if (mbl_scorer_key(scorer, name))
            return scorer;
    return NULL;
}

static void unknown_item_key(const mbl_scorer_t *scorer, const char *key, const mbl_yaml_node_t *node,
                             mbl_config_problems_t *problems) {
    char planned[64];
    char hint[MBL_SUGGESTED];
    const char *best = NULL;
    size_t distance = 0;
    const mbl_scorer_t *taker = taker_of(node->key);
    snprintf(planned, sizeof planned, "rewards.%.50s", node->key);
    if (mbl_config_is_unsupported(planned)) {
        mbl_config_problem(problems, node->key_line, "%s: not supported by this version; leave it out", key);
        return;
    }
    if (taker) {
        mbl_config_problem(problems, node->key_line, "%s: no key of %s; it belongs to rewards with type: %s",
                           key, scorer ? scorer->name : "this reward", taker->name);
        return;
    }
    for (size_t i = 0; i < N_KEYS; i++)
        mbl_suggest(node->key, item_keys[i], &best, &distance);
    for (const mbl_scorer_key_t *own = scorer ? scorer->keys : NULL; own && own->name; own++)
        mbl_suggest(node->key, own->name, &best, &distance);
    mbl_config_problem(problems, node->key_line,
                       "%s: unknown key%s; keys of a reward: name, type, weight, min, group, on_failure, "
                       "min_valid, monitor, range, "
                       "options (what a scorer takes goes below options)",
                       key, mbl_suggested("", best, hint));
}

/* What is being read: one reward of the list. */
typedef struct {
    mbl_reward_spec_t *spec;
    size_t index;
    const mbl_scorer_t *scorer; /* NULL: none of that name */
    json_t *options;
} item_t;

static mbl_status_t read_range(mbl_reward_spec_t *spec, const char *key, const mbl_yaml_node_t *node,
                               mbl_config_problems_t *problems) {
    size_t before = problems->count;
    json_t *pair = mbl_config_read_pair(key, node, problems);
    if (!pair)
        return problems->count > before ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %s", key);
    spec->low = json_number_value(json_array_get(pair, 0));
    spec->high = json_number_value(json_array_get(pair, 1));
    json_decref(pair);
    return MBL_OK;
}

/* "all" is the default, and is not kept. */
static mbl_status_t read_applies(mbl_reward_spec_t *spec, const char *key, const mbl_yaml_node_t *node,
                                 mbl_config_problems_t *problems) {
    char shown[80];
    mbl_applies_t *applies;
    bool text = node->kind == MBL_YAML_SCALAR && mbl_config_printable(node->text);
    if (!text) {
        mbl_config_problem(problems, node->line,
                           "%s: %s; expected all, quoted, metadata.KEY or regex:PATTERN", key,
                           mbl_config_shown(node, shown));
        return MBL_OK;
    }
    mbl_status_t status = mbl_applies_open(node->text, &applies);
    if (status == MBL_ERR_CONFIG) {
        mbl_config_problem(problems, node->line, "%s: %s: %s", key, mbl_config_shown(node, shown),
                           mbl_fail_message());
        return MBL_OK;
    }
    MBL_TRY(status);
    mbl_applies_close(applies);
    if (strcmp(node->text, "all") == 0)
        return MBL_OK;
    spec->applies_to = mbl_strdup(node->text);
    return spec->applies_to ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %s", key);
}

static mbl_status_t read_item_key(item_t *item, const mbl_yaml_node_t *node,
                                  mbl_config_problems_t *problems) {
    char key[128];
    mbl_reward_spec_t *spec = item->spec;
    const mbl_scorer_key_t *own = item->scorer ? mbl_scorer_key(item->scorer, node->key) : NULL;
    snprintf(key, sizeof key, "rewards.%zu.%.80s", item->index, node->key);
    if (strcmp(node->key, "name") == 0)
        return read_name(&spec->name, key, node, problems);
    if (strcmp(node->key, "type") == 0)
        return read_name(&spec->type, key, node, problems);
    if (strcmp(node->key, "group") == 0)
        return read_name(&spec->group, key, node, problems);
    if (strcmp(node->key, "weight") == 0)
        return mbl_config_read_field(spec, &weight_field, key, node, problems);
    if (strcmp(node->key, "min") == 0)
        return mbl_config_read_field(spec, &min_field, key, node, problems);
    if (strcmp(node->key, "on_failure") == 0)
        return mbl_config_read_field(spec, &on_failure_field, key, node, problems);
    if (strcmp(node->key, "min_valid") == 0)
        return mbl_config_read_field(spec, &min_valid_field, key, node, problems);
    if (strcmp(node->key, "monitor") == 0)
        return mbl_config_read_field(spec, &monitor_field, key, node, problems);
    if (strcmp(node->key, "range") == 0)
        return read_range(spec, key, node, problems);
    if (strcmp(node->key, "applies_to") == 0)
        return read_applies(spec, key, node, problems);
    if (strcmp(node->key, "options") == 0)
        return read_options(item->options, item->scorer, key, node, problems);
    if (own)
        return mbl_config_read_scorer_key(item->options, own, key, node, problems);
    unknown_item_key(item->scorer, key, node, problems);
    return MBL_OK;
}

/* The options as text; none where nothing was given. */
static mbl_status_t keep_options(item_t *item, bool given) {
    if (!given && json_object_size(item->options) == 0)
        return MBL_OK;
    char *text = json_dumps(item->options, JSON_REAL_PRECISION(17));
    item->spec->options = text ? mbl_strdup(text) : NULL;
    free(text);
    return item->spec->options ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for options");
}

static const mbl_scorer_t *scorer_of(const mbl_yaml_node_t *item) {
    const mbl_yaml_node_t *type = mbl_yaml_find(item, "type");
    type = type ? type : mbl_yaml_find(item, "name");
    return type && type->kind == MBL_YAML_SCALAR ? mbl_scorer_find(type->text) : NULL;
}

static mbl_status_t read_children(item_t *item, const mbl_yaml_node_t *node,
                                  mbl_config_problems_t *problems) {
    for (const mbl_yaml_node_t *child = node->first; child; child = child->next) {
        if (mbl_yaml_find(node, child->key) != child)
            mbl_config_problem(problems, child->key_line, "rewards.%zu.%.80s: given twice; keep one",
                               item->index, child->key);
        else
            MBL_TRY(read_item_key(item, child, problems));
    }
    return keep_options(item, mbl_yaml_find(node, "options"));
}

static mbl_status_t read_item(mbl_reward_spec_t *spec, size_t i, const mbl_yaml_node_t *node,
                              mbl_config_problems_t *problems) {
    char shown[80];
    spec->weight = 1;
    spec->min = spec->low = spec->high = NAN;
    if (node->kind != MBL_YAML_MAP) {
        mbl_config_problem(problems, node->line, "rewards.%zu: %s is not a mapping; expected {name: %s}", i,
                           mbl_config_shown(node, shown),
                           node->kind == MBL_YAML_SCALAR && strlen(node->text) < MAX_NAME ? node->text
                                                                                          : "ocr");
        return MBL_OK;
    }
    item_t item = {.spec = spec, .index = i, .scorer = scorer_of(node), .options = json_object()};
    mbl_status_t status =
        item.options ? read_children(&item, node, problems) : MBL_FAIL(MBL_ERR_MEM, "no memory for a reward");
    json_decref(item.options);
    MBL_TRY(status);
    if (!mbl_yaml_find(node, "name"))
        mbl_config_problem(problems, node->line, "rewards.%zu: has no name; expected {name: ocr}", i);
    if (spec->name && !spec->type && !(spec->type = mbl_strdup(spec->name)))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a reward");
    return MBL_OK;
}

static void find_duplicates(const mbl_reward_spec_t *specs, size_t n, const int *lines,
                            mbl_config_problems_t *problems) {
    for (size_t i = 1; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (specs[i].name && specs[j].name && strcmp(specs[i].name, specs[j].name) == 0) {
                mbl_config_problem(
                    problems, lines[i],
                    "rewards.%zu.name: \"%s\" is the name of rewards.%zu too; give each its own "
                    "name, with type: for the scorer",
                    i, specs[i].name, j);
                break;
            }
}

mbl_status_t mbl_config_read_rewards(mbl_config_t *config, const mbl_yaml_node_t *list,
                                     mbl_config_problems_t *problems) {
    mbl_status_t status = MBL_OK;
    mbl_reward_spec_t *specs = NULL;
    int *lines = NULL;
    size_t n = 0, i = 0;
    for (const mbl_yaml_node_t *item = list->first; item; item = item->next)
        n++;
    if (n == 0 || n > MBL_MAX_REWARDS) {
        mbl_config_problem(problems, list->line,
                           "rewards: a list of %zu; expected 1 to %d, such as [{name: ocr}]", n,
                           MBL_MAX_REWARDS);
        return MBL_OK;
    }
    MBL_ALLOC(specs, n);
    MBL_ALLOC_GOTO(lines, n, failed);
    for (const mbl_yaml_node_t *item = list->first; item; item = item->next, i++) {
        lines[i] = item->line;
        MBL_TRY_GOTO(read_item(&specs[i], i, item, problems), failed);
    }
    find_duplicates(specs, n, lines, problems);
    mbl_config_free_rewards(config);
    config->rewards.items = specs;
    config->rewards.count = n;
    mbl_free(config->origin->reward_lines);
    config->origin->reward_lines = lines;
    return MBL_OK;
failed:
    free_specs(specs, n);
    mbl_free(lines);
    return status;
}
