/* YAML to JSON values; passwords in URLs. */
#include "service/values.h"

#include "base/status.h"
#include "config/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A plain word; digits first, since YAML knows no "nan" or "0x1" of strtod's. */
static json_t *plain_value(const char *word) {
    const char *digits = word + (*word == '-' || *word == '+');
    char *end;
    if (*word == 0 || strcmp(word, "~") == 0 || strcmp(word, "null") == 0)
        return json_null();
    if (mbl_yaml_boolean(word) >= 0)
        return json_boolean(mbl_yaml_boolean(word));
    if (!isdigit((unsigned char)*digits) && *digits != '.')
        return json_string(word);
    if (strspn(digits, "0123456789") == strlen(digits)) {
        errno = 0;
        long long whole = strtoll(word, &end, 10);
        if (errno == 0)
            return json_integer(whole);
    }
    double real = strspn(digits, "0123456789.eE+-") == strlen(digits) ? strtod(word, &end) : NAN;
    return isfinite(real) && *end == 0 ? json_real(real) : json_string(word);
}

/* The tree is at most MBL_YAML_MAX_DEPTH deep. */
static json_t *value_of(const mbl_yaml_node_t *node) {
    if (node->kind == MBL_YAML_SCALAR)
        return node->quoted ? json_string(node->text) : plain_value(node->text);
    json_t *all = node->kind == MBL_YAML_MAP ? json_object() : json_array();
    for (const mbl_yaml_node_t *child = node->first; child; child = child->next) {
        json_t *value = value_of(child);
        if (node->kind == MBL_YAML_MAP)
            json_object_set_new(all, child->key, value);
        else
            json_array_append_new(all, value);
    }
    return all;
}

json_t *mbl_values_of_yaml(const char *text, size_t size) {
    mbl_yaml_node_t *node = NULL;
    mbl_yaml_problem_t problem;
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_yaml_parse(text, size, 0, &node, &problem);
    mbl_fail_quiet(0);
    json_t *values = status == MBL_OK && node && node->kind == MBL_YAML_MAP ? value_of(node) : NULL;
    mbl_yaml_free(node);
    return values;
}

void mbl_values_mask(char *text, size_t size) {
    for (size_t i = 0; i + 3 <= size; i++) {
        if (memcmp(text + i, "://", 3) != 0)
            continue;
        size_t start = i + 3, end = start, at = 0;
        while (end < size && !strchr(" \t\r\n\"'/<>,", text[end])) {
            if (text[end] == '@')
                at = end;
            end++;
        }
        if (at > 0)
            memset(text + start, '*', at - start);
    }
}
