/* Loading a configuration: file, overrides, defaults; and its end. */
#include "config/config.h"

#include "base/mem.h"
#include "config/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void free_origin(mbl_config_origin_t *origin) {
    if (!origin)
        return;
    for (size_t i = 0; origin->sets && i < origin->n_sets; i++)
        mbl_free(origin->sets[i]);
    mbl_free(origin->sets);
    mbl_free(origin->file);
    mbl_free(origin->lines);
    mbl_free(origin->reward_lines);
    mbl_free(origin->stage_lines);
    mbl_free(origin);
}

void mbl_config_free(mbl_config_t *config) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    if (!config)
        return;
    for (size_t i = 0; i < n; i++) {
        void *place = (char *)config + fields[i].offset;
        if (fields[i].kind >= MBL_FIELD_FOLDER && fields[i].kind <= MBL_FIELD_TEXT)
            mbl_free(*(char **)place);
        if (fields[i].kind == MBL_FIELD_STRINGS) {
            mbl_config_strings_t *list = place;
            for (size_t j = 0; j < list->count; j++)
                mbl_free(list->items[j]);
            mbl_free(list->items);
        }
        if (fields[i].kind == MBL_FIELD_COUNTS)
            mbl_free(((mbl_config_counts_t *)place)->items);
    }
    mbl_config_free_rewards(config);
    mbl_config_free_stages(config);
    mbl_config_free_sources(config);
    free_origin(config->origin);
    mbl_free(config);
}

static mbl_status_t make_origin(const char *name, const char *const *sets, size_t n_sets,
                                mbl_config_origin_t **out) {
    mbl_config_origin_t *origin;
    size_t n_fields;
    mbl_config_fields(&n_fields);
    MBL_ALLOC(origin, 1);
    origin->n_sets = n_sets;
    origin->file = mbl_strdup(name);
    origin->lines = mbl_calloc(n_fields, sizeof *origin->lines);
    origin->sets = mbl_calloc(n_sets + 1, sizeof *origin->sets);
    bool good = origin->file && origin->lines && origin->sets;
    for (size_t i = 0; good && i < n_sets; i++)
        good = (origin->sets[i] = mbl_strdup(sets[i])) != NULL;
    if (!good) {
        free_origin(origin);
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a configuration");
    }
    *out = origin;
    return MBL_OK;
}

/* The child of `parent` that the next word of a --set names, made when a mapping lacks it; NULL (with a
 * problem, or without memory) when there is no such place. */
static mbl_yaml_node_t *step_into(mbl_yaml_node_t *parent, const char *word, size_t length, int line,
                                  mbl_config_problems_t *problems) {
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    if (parent->kind == MBL_YAML_LIST) {
        char *end;
        mbl_yaml_node_t *item = mbl_yaml_at(parent, strtoul(name, &end, 10));
        if (!item || *end || !name[0])
            mbl_config_problem(problems, line, "\"%s\" is not a place in the list; expected a number from 0",
                               name);
        return *end || !name[0] ? NULL : item;
    }
    if (parent->kind != MBL_YAML_MAP || length == 0 || length >= sizeof name) {
        mbl_config_problem(problems, line,
                           "\"%s\" lies below a single value; expected KEY=VALUE, for instance "
                           "train.lr=1e-4",
                           name);
        return NULL;
    }
    mbl_yaml_node_t *child = mbl_yaml_find(parent, name);
    if (child)
        return child;
    child = mbl_yaml_map(line);
    if (child && !(child->key = mbl_strdup(name))) {
        mbl_yaml_free(child);
        child = NULL;
    }
    if (child)
        mbl_yaml_append(parent, child);
    return child;
}

/* `keep: 3` is short for `keep: {last: 3}`, which a --set of another key below it spells out. `path` is that
 * of the scalar node. */
static mbl_status_t expand_shorthand(mbl_yaml_node_t *node, const char *path, size_t length) {
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : 0), path);
    const mbl_field_t *field = node->kind == MBL_YAML_SCALAR ? mbl_config_shorthand(name) : NULL;
    if (!field)
        return MBL_OK;
    mbl_yaml_node_t *child = mbl_yaml_map(node->line);
    char *key = child ? mbl_strdup(strrchr(field->key, '.') + 1) : NULL;
    if (!key) {
        mbl_yaml_free(child);
        return MBL_FAIL(MBL_ERR_MEM, "no memory for --set %s", path);
    }
    child->kind = MBL_YAML_SCALAR;
    child->key = key;
    child->text = node->text;
    child->quoted = node->quoted;
    node->kind = MBL_YAML_MAP;
    node->text = NULL;
    mbl_yaml_append(node, child);
    return MBL_OK;
}

/* Puts the value of one --set into the tree. */
static mbl_status_t apply_set(mbl_yaml_node_t *root, const char *set, int line,
                              mbl_config_problems_t *problems) {
    mbl_yaml_problem_t problem;
    mbl_yaml_node_t *value = NULL, *parent = root, *node = root;
    const char *equals = strchr(set, '='), *word = set;
    if (!equals || equals == set) {
        mbl_config_problem(problems, line, "no KEY=VALUE; expected for instance train.lr=1e-4");
        return MBL_OK;
    }
    mbl_status_t status = mbl_yaml_parse(equals + 1, strlen(equals + 1), line, &value, &problem);
    if (status == MBL_ERR_FORMAT || (status == MBL_OK && !value)) {
        mbl_config_problem(problems, line,
                           "the value is %s%s; expected KEY=VALUE, for instance train.lr=1e-4",
                           status == MBL_OK ? "empty" : "no YAML: ", status == MBL_OK ? "" : problem.text);
        return MBL_OK;
    }
    MBL_TRY(status);
    size_t before = problems->count;
    while (node && word < equals) {
        size_t length = strcspn(word, ".=");
        parent = node;
        status = word > set ? expand_shorthand(parent, set, (size_t)(word - set) - 1) : MBL_OK;
        if (status != MBL_OK) {
            mbl_yaml_free(value);
            return status;
        }
        node = step_into(parent, word, length, line, problems);
        word += length + 1;
    }
    if (!node) {
        mbl_yaml_free(value);
        return problems->count > before ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for --set %s", set);
    }
    mbl_yaml_replace(parent, node, value);
    return MBL_OK;
}

static mbl_status_t read_text(mbl_config_t *config, const char *text, size_t size,
                              mbl_config_problems_t *problems) {
    mbl_yaml_node_t *root = NULL;
    mbl_yaml_problem_t problem;
    mbl_status_t status = mbl_yaml_parse(text, size, 0, &root, &problem);
    if (status == MBL_ERR_FORMAT) {
        mbl_yaml_words(text, size, &problem);
        mbl_config_problem(problems, problem.line, "not a YAML configuration: %s", problem.text);
        return MBL_OK;
    }
    MBL_TRY(status);
    bool empty = root && root->kind == MBL_YAML_SCALAR && !root->text[0];
    if (empty) {
        mbl_yaml_free(root);
        root = NULL;
    }
    if (!root && !(root = mbl_yaml_map(0)))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a configuration");
    const mbl_config_origin_t *origin = config->origin;
    for (size_t i = 0; i < origin->n_sets && root->kind == MBL_YAML_MAP && status == MBL_OK; i++)
        status = apply_set(root, origin->sets[i], -(int)i - 1, problems);
    if (status == MBL_OK)
        status = mbl_config_read(config, root, problems);
    mbl_yaml_free(root);
    return status;
}

mbl_status_t mbl_config_parse(const char *text, size_t size, const char *name, const char *const *sets,
                              size_t n_sets, mbl_config_t **out) {
    mbl_status_t status;
    mbl_config_t *config;
    MBL_REQUIRE(n_sets < 10000, "%zu overrides; at most 9999 are taken", n_sets);
    MBL_ALLOC(config, 1);
    MBL_TRY_GOTO(make_origin(name, sets, n_sets, &config->origin), failed);
    MBL_TRY_GOTO(mbl_config_defaults(config), failed);
    mbl_config_problems_t problems = {.origin = config->origin};
    MBL_TRY_GOTO(read_text(config, text, size, &problems), failed);
    MBL_TRY_GOTO(mbl_config_problems_end(&problems), failed);
    *out = config;
    return MBL_OK;
failed:
    mbl_config_free(config);
    return status;
}

mbl_status_t mbl_config_load(const char *path, const char *const *sets, size_t n_sets, mbl_config_t **out) {
    mbl_status_t status = MBL_OK;
    char *text;
    FILE *file = fopen(path, "rb");
    if (!file)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: cannot be opened (%s); expected a configuration such as run.yaml", path,
                        strerror(errno));
    MBL_ALLOC_GOTO(text, MBL_YAML_MAX_BYTES + 1, no_memory);
    size_t size = fread(text, 1, MBL_YAML_MAX_BYTES + 1, file);
    if (ferror(file))
        status =
            MBL_FAIL(MBL_ERR_CONFIG, "%s: cannot be read (%s); expected a configuration such as run.yaml",
                     path, strerror(errno));
    else
        status = mbl_config_parse(text, size, path, sets, n_sets, out);
    mbl_free(text);
no_memory:
    fclose(file);
    return status;
}
