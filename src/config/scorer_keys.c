/* The keys of a reward that its scorer takes: read by the scorer's own table into the JSON of its options,
 * and written out beside the others. */
#include "config/table.h"

#include "base/mem.h"

#include <jansson.h>
#include <string.h>

/* One value by a field of the configuration's own kinds, whose messages it shares. */
static mbl_status_t read_as(mbl_field_kind_t kind, const mbl_scorer_key_t *key, const char *shown,
                            void *place, const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    mbl_field_t field = {.key = shown,
                         .kind = kind,
                         .fallback = key->fallback,
                         .low = key->low,
                         .high = key->high,
                         .words = key->words};
    return mbl_config_read_field(place, &field, shown, node, problems);
}

/* Texts may have several lines, such as a judge's question. */
static bool is_text(const mbl_yaml_node_t *node) {
    bool good = node->kind == MBL_YAML_SCALAR && node->text[0];
    for (const char *c = good ? node->text : ""; *c; c++)
        good &= (unsigned char)*c >= ' ' || *c == '\n' || *c == '\t';
    return good;
}

static json_t *read_text(const char *shown, const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char text[80];
    if (is_text(node))
        return json_string(node->text);
    mbl_config_problem(problems, node->line, "%s: %s; expected a text", shown,
                       node->kind == MBL_YAML_SCALAR && node->text[0] ? "has control characters"
                       : node->kind == MBL_YAML_SCALAR                ? "is empty"
                                                                      : mbl_config_shown(node, text));
    return NULL;
}

static json_t *read_texts(const mbl_scorer_key_t *key, const char *shown, const mbl_yaml_node_t *node,
                          mbl_config_problems_t *problems) {
    json_t *list = json_array();
    size_t n = 0;
    for (const mbl_yaml_node_t *item = node->kind == MBL_YAML_LIST ? node->first : NULL; item && list;
         item = item->next, n++)
        if (!is_text(item) || json_array_append_new(list, json_string(item->text))) {
            json_decref(list);
            list = NULL;
        }
    if (list && n >= (size_t)key->low && n <= (size_t)key->high)
        return list;
    mbl_config_problem(problems, node->line, "%s: expected a list of %g to %g texts", shown, key->low,
                       key->high);
    json_decref(list);
    return NULL;
}

json_t *mbl_config_read_pair(const char *shown, const mbl_yaml_node_t *node,
                             mbl_config_problems_t *problems) {
    static const mbl_scorer_key_t number = {.name = "", .low = -1e30, .high = 1e30, .fallback = "0"};
    double pair[2] = {0, 0};
    size_t n = 0, before = problems->count;
    for (const mbl_yaml_node_t *item = node->kind == MBL_YAML_LIST ? node->first : NULL; item;
         item = item->next)
        if (n++ < 2 && read_as(MBL_FIELD_NUMBER, &number, shown, &pair[n - 1], item, problems) != MBL_OK)
            return NULL;
    if (problems->count == before && n == 2 && pair[0] < pair[1])
        return json_pack("[f,f]", pair[0], pair[1]);
    if (problems->count == before)
        mbl_config_problem(problems, node->line,
                           "%s: expected [low, high] with low below high, such as [0, 1]", shown);
    return NULL;
}

/* The value, or NULL with a problem noted; what cannot be for want of memory is one too. */
static json_t *read_value(const mbl_scorer_key_t *key, const char *shown, const mbl_yaml_node_t *node,
                          mbl_config_problems_t *problems) {
    size_t before = problems->count, count = 0;
    double number = 0;
    int choice = 0;
    char *path = NULL;
    json_t *out = NULL;
    switch (key->kind) {
    case MBL_KEY_TEXT:
        return read_text(shown, node, problems);
    case MBL_KEY_TEXTS:
        return read_texts(key, shown, node, problems);
    case MBL_KEY_PAIR:
        return mbl_config_read_pair(shown, node, problems);
    case MBL_KEY_TREE:
        if (node->kind == MBL_YAML_MAP)
            return mbl_config_node_json(node);
        mbl_config_problem(problems, node->line, "%s: expected a mapping", shown);
        return NULL;
    case MBL_KEY_PROGRAM:
        if (!is_text(node) || !strchr(node->text, '/'))
            return read_text(shown, node, problems);
        __attribute__((fallthrough));
    case MBL_KEY_FILE:
        if (read_as(MBL_FIELD_FILE, key, shown, &path, node, problems) == MBL_OK && path)
            out = json_string(path);
        mbl_free(path);
        return out;
    case MBL_KEY_COUNT:
        if (read_as(MBL_FIELD_COUNT, key, shown, &count, node, problems) == MBL_OK &&
            problems->count == before)
            out = json_integer((json_int_t)count);
        return out;
    case MBL_KEY_NUMBER:
    case MBL_KEY_SECONDS:
        if (read_as(key->kind == MBL_KEY_NUMBER ? MBL_FIELD_NUMBER : MBL_FIELD_SECONDS, key, shown, &number,
                    node, problems) == MBL_OK &&
            problems->count == before)
            out = json_real(number);
        return out;
    case MBL_KEY_CHOICE:
        if (read_as(MBL_FIELD_CHOICE, key, shown, &choice, node, problems) == MBL_OK &&
            problems->count == before)
            out = json_string(key->words[choice]);
        return out;
    }
    return NULL;
}

mbl_status_t mbl_config_read_scorer_key(json_t *options, const mbl_scorer_key_t *key, const char *shown,
                                        const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    size_t before = problems->count;
    json_t *value = read_value(key, shown, node, problems);
    if (value && json_object_get(options, key->name)) {
        json_decref(value);
        mbl_config_problem(problems, node->line, "%s: given twice; keep one", shown);
        return MBL_OK;
    }
    if (!value)
        return problems->count > before ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %s", shown);
    return json_object_set_new(options, key->name, value) ? MBL_FAIL(MBL_ERR_MEM, "no memory for %s", shown)
                                                          : MBL_OK;
}
