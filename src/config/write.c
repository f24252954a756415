/* The configuration going out: the resolved run.yaml, one to begin with, and JSON. */
#include "config/table.h"

#include "base/mem.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void write_list(FILE *out, const mbl_field_t *field, const void *place) {
    const mbl_config_strings_t *names = place;
    const mbl_config_counts_t *counts = place;
    bool strings = field->kind == MBL_FIELD_STRINGS;
    size_t n = strings ? names->count : counts->count;
    fputc('[', out);
    for (size_t i = 0; i < n; i++) {
        fputs(i ? ", " : "", out);
        if (strings)
            mbl_yaml_write_quoted(out, names->items[i]);
        else
            fprintf(out, "%zu", counts->items[i]);
    }
    fputc(']', out);
}

/* A real number of options, which stays one when it is whole. */
static void write_real(FILE *out, double value) {
    mbl_yaml_write_number(out, value);
    if (value == floor(value) && fabs(value) < 1e15)
        fputs(".0", out);
}

/* JSON, but for numbers, which YAML 1.1 knows in fewer forms. */
static void write_json(FILE *out, const json_t *value) {
    const char *key, *glue = "";
    json_t *child;
    size_t i;
    if (json_is_object(value)) {
        fputc('{', out);
        json_object_foreach((json_t *)(uintptr_t)value, key, child) {
            fputs(glue, out);
            mbl_yaml_write_quoted(out, key);
            fputs(": ", out);
            write_json(out, child); /* no deeper than it was read */
            glue = ", ";
        }
        fputc('}', out);
    } else if (json_is_array(value)) {
        fputc('[', out);
        json_array_foreach(value, i, child) {
            fputs(i ? ", " : "", out);
            write_json(out, child);
        }
        fputc(']', out);
    } else if (json_is_string(value))
        mbl_yaml_write_quoted(out, json_string_value(value));
    else if (json_is_real(value))
        write_real(out, json_real_value(value));
    else if (json_is_integer(value))
        fprintf(out, "%lld", (long long)json_integer_value(value));
    else
        fputs(json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null", out);
}

/* Of a scorer that has a table of keys, they stand beside the others. */
static void write_options(FILE *out, const mbl_reward_spec_t *spec) {
    const mbl_scorer_t *scorer = mbl_scorer_find(spec->type);
    json_t *value = json_loads(spec->options, 0, NULL), *child;
    const char *key;
    if (value && scorer && scorer->keys) {
        json_object_foreach(value, key, child) {
            fprintf(out, ", %s: ", key);
            write_json(out, child);
        }
    } else {
        fputs(", options: ", out);
        if (value)
            write_json(out, value);
        else
            fputs(spec->options, out); /* without memory: the same in JSON */
    }
    json_decref(value);
}

static void write_rewards(FILE *out, const mbl_config_t *config) {
    for (size_t i = 0; i < config->rewards.count; i++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[i];
        fputs("  - {name: ", out);
        mbl_yaml_write_quoted(out, spec->name);
        fputs(", type: ", out);
        mbl_yaml_write_quoted(out, spec->type);
        fputs(", weight: ", out);
        mbl_yaml_write_number(out, spec->weight);
        if (spec->group) {
            fputs(", group: ", out);
            mbl_yaml_write_quoted(out, spec->group);
        }
        if (!isnan(spec->min)) {
            fputs(", min: ", out);
            mbl_yaml_write_number(out, spec->min);
        }
        fprintf(out, ", on_failure: %s", mbl_config_on_failure_words[spec->on_failure]);
        if (spec->min_valid > 0) {
            fputs(", min_valid: ", out);
            mbl_yaml_write_number(out, spec->min_valid);
        }
        if (spec->use == MBL_REWARD_MONITOR)
            fputs(", monitor: true", out);
        if (!isnan(spec->low)) {
            fputs(", range: [", out);
            mbl_yaml_write_number(out, spec->low);
            fputs(", ", out);
            mbl_yaml_write_number(out, spec->high);
            fputc(']', out);
        }
        if (spec->applies_to) {
            fputs(", applies_to: ", out);
            mbl_yaml_write_quoted(out, spec->applies_to);
        }
        if (spec->options)
            write_options(out, spec);
        fputs("}\n", out);
    }
}

static void write_stages(FILE *out, const mbl_config_t *config) {
    for (size_t i = 0; i < config->stages.count; i++) {
        const mbl_config_stage_t *stage = &config->stages.items[i];
        fprintf(out, "  - {steps: %zu, rewards: ", stage->steps);
        write_list(out, &(mbl_field_t){.kind = MBL_FIELD_STRINGS}, &stage->rewards);
        if (stage->has_method)
            fprintf(out, ", method: %s", mbl_config_word("balance.method", (int)stage->method));
        for (size_t j = 0; j < stage->n_weights; j++) {
            fputs(j ? ", " : ", weights: [", out);
            mbl_yaml_write_number(out, stage->weights[j]);
        }
        fputs(stage->n_weights ? "]}\n" : "}\n", out);
    }
}

static void write_sources(FILE *out, const mbl_config_t *config) {
    for (size_t i = 0; i < config->prompts.sources.count; i++) {
        const mbl_config_prompt_source_t *source = &config->prompts.sources.items[i];
        fputs("    - {name: ", out);
        mbl_yaml_write_quoted(out, source->name);
        fputs(", file: ", out);
        mbl_yaml_write_quoted(out, source->file);
        fputs(", weight: ", out);
        mbl_yaml_write_number(out, source->weight);
        fputs("}\n", out);
    }
}

/* A word of a choice; in quotes where YAML 1.1 reads a truth value. */
static void write_word(FILE *out, const char *word) {
    if (mbl_yaml_boolean(word) >= 0)
        mbl_yaml_write_quoted(out, word);
    else
        fputs(word, out);
}

/* Lists of mappings, which are left out when there is none. */
static size_t items_of(const mbl_field_t *field, const mbl_config_t *config) {
    return field->kind == MBL_FIELD_REWARDS  ? config->rewards.count
           : field->kind == MBL_FIELD_STAGES ? config->stages.count
                                             : config->prompts.sources.count;
}

static bool is_list_of_maps(const mbl_field_t *field) {
    return field->kind == MBL_FIELD_REWARDS || field->kind == MBL_FIELD_STAGES ||
           field->kind == MBL_FIELD_SOURCES;
}

/* Whether a key says anything beside the others; what it says by default is no part of this run. */
static bool says_something(const mbl_field_t *field, const mbl_config_t *config) {
    if (is_list_of_maps(field))
        return items_of(field, config) > 0;
    return config->prompts.source == MBL_CONFIG_SOURCE_SIGNS ||
           (strcmp(field->key, "prompts.train_count") != 0 && strcmp(field->key, "prompts.test_count") != 0);
}

static void write_value(FILE *out, const mbl_field_t *field, const mbl_config_t *config) {
    const void *place = (const char *)config + field->offset;
    const char *word;
    switch (field->kind) {
    case MBL_FIELD_COUNT:
    case MBL_FIELD_BYTES:
        if ((word = mbl_config_word_of_count(field, *(const size_t *)place)))
            write_word(out, word);
        else
            fprintf(out, "%zu", *(const size_t *)place);
        break;
    case MBL_FIELD_NUMBER:
    case MBL_FIELD_SECONDS:
        mbl_yaml_write_number(out, *(const double *)place);
        break;
    case MBL_FIELD_CHOICE:
        write_word(out, field->words[*(const int *)place]);
        break;
    case MBL_FIELD_FOLDER:
    case MBL_FIELD_FILE:
    case MBL_FIELD_PATH:
    case MBL_FIELD_TEXT:
    case MBL_FIELD_PLACE:
        mbl_yaml_write_quoted(out, *(char *const *)place);
        break;
    default:
        write_list(out, field, place);
    }
}

size_t mbl_config_shared_section(const char *a, const char *b) {
    size_t shared = 0;
    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == '.')
            shared = i + 1;
    return shared;
}

static int depth_at(const char *key, size_t end) {
    int depth = 0;
    for (size_t i = 0; i < end; i++)
        depth += key[i] == '.';
    return depth;
}

/* "train:  # loss and optimizer" for every section that begins with this key. */
static void write_headings(FILE *out, const char *key, const char *previous) {
    for (size_t i = mbl_config_shared_section(key, previous); key[i]; i++) {
        if (key[i] != '.')
            continue;
        char path[128];
        int depth = depth_at(key, i);
        snprintf(path, sizeof path, "%.*s", (int)i, key);
        const char *help = mbl_config_section_help(path), *dot = strrchr(path, '.');
        fprintf(out, "%s%*s%s:%s%s\n", depth ? "" : "\n", 2 * depth, "", dot ? dot + 1 : path,
                *help ? "  # " : "", help);
    }
}

static void write_comment(FILE *out, const mbl_field_t *field) {
    char range[200];
    mbl_config_range(field, range, sizeof range);
    fprintf(out, "  # %s%s%s%s%s\n", range, range[0] && field->unit ? " " : "",
            field->unit ? field->unit : "", range[0] || field->unit ? "; " : "", field->help);
}

/* One comment, a line for each of its own. */
static void write_note(FILE *out, const char *note) {
    while (note && *note) {
        size_t length = strcspn(note, "\n");
        fprintf(out, "# %.*s\n", (int)length, note);
        note += length + (note[length] == '\n');
    }
}

/* A key of a list, below its heading. */
static void write_maps(FILE *out, const mbl_field_t *field, const mbl_config_t *config) {
    if (field->kind == MBL_FIELD_SOURCES) { /* in a section */
        fprintf(out, "  sources:  # %s\n", field->help);
        write_sources(out, config);
        return;
    }
    fprintf(out, "\n%s:  # %s\n", field->key, field->help);
    (field->kind == MBL_FIELD_REWARDS ? write_rewards : write_stages)(out, config);
}

/* The keys that say something; with `set`, only those that the file or a --set gave. */
static void write_keys(FILE *out, const mbl_config_t *config, bool set) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    const char *previous = "";
    for (size_t i = 0; i < n; i++) {
        const mbl_field_t *field = &fields[i];
        const char *dot = strrchr(field->key, '.');
        if (set && config->origin->lines[i] == 0)
            continue;
        write_headings(out, field->key, previous);
        previous = field->key;
        if (!says_something(field, config))
            continue;
        if (is_list_of_maps(field)) {
            write_maps(out, field, config);
            continue;
        }
        fprintf(out, "%*s%s: ", 2 * depth_at(field->key, strlen(field->key)), "", dot ? dot + 1 : field->key);
        write_value(out, field, config);
        write_comment(out, field);
    }
}

static void write_resolved(FILE *out, const mbl_config_t *config, const char *note) {
    fputs("# The resolved configuration of this run: every key with its value, range and meaning.\n", out);
    write_note(out, note);
    write_keys(out, config, false);
}

void mbl_config_write_set(const mbl_config_t *config, const char *note, FILE *out) {
    write_note(out, note);
    write_keys(out, config, true);
}

mbl_status_t mbl_config_write(const mbl_config_t *config, const char *path, const char *note) {
    char *temporary = mbl_format("%s.partial", path);
    if (!temporary)
        return MBL_FAIL(MBL_ERR_MEM, "no memory to write %s", path);
    FILE *out = fopen(temporary, "w");
    bool good = out != NULL;
    if (out) {
        write_resolved(out, config, note);
        good = !ferror(out) && fflush(out) == 0 && fsync(fileno(out)) == 0;
        good = fclose(out) == 0 && good && rename(temporary, path) == 0;
    }
    mbl_status_t status = MBL_OK;
    if (!good) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written (%s)", path, strerror(errno));
        if (out)
            unlink(temporary);
    }
    mbl_free(temporary);
    return status;
}

static json_t *list_json(const mbl_field_t *field, const void *place) {
    const mbl_config_strings_t *names = place;
    const mbl_config_counts_t *counts = place;
    bool strings = field->kind == MBL_FIELD_STRINGS;
    json_t *out = json_array();
    for (size_t i = 0; i < (strings ? names->count : counts->count); i++)
        if (json_array_append_new(out, strings ? json_string(names->items[i])
                                               : json_integer((json_int_t)counts->items[i]))) {
            json_decref(out);
            return NULL;
        }
    return out;
}

static json_t *rewards_json(const mbl_config_t *config) {
    json_t *out = json_array();
    for (size_t i = 0; i < config->rewards.count; i++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[i];
        json_t *item = json_pack("{s:s, s:s, s:f, s:s}", "name", spec->name, "type", spec->type, "weight",
                                 spec->weight, "on_failure", mbl_config_on_failure_words[spec->on_failure]);
        if (!isnan(spec->min) && json_object_set_new(item, "min", json_real(spec->min))) {
            json_decref(item);
            item = NULL;
        }
        if (item &&
            ((spec->min_valid > 0 && json_object_set_new(item, "min_valid", json_real(spec->min_valid))) ||
             (spec->use == MBL_REWARD_MONITOR && json_object_set_new(item, "monitor", json_true())))) {
            json_decref(item);
            item = NULL;
        }
        if (item && !isnan(spec->low) &&
            json_object_set_new(item, "range", json_pack("[f,f]", spec->low, spec->high))) {
            json_decref(item);
            item = NULL;
        }
        json_t *options = spec->options ? json_loads(spec->options, 0, NULL) : NULL;
        if ((spec->options && json_object_set_new(item, "options", options)) ||
            (spec->group && json_object_set_new(item, "group", json_string(spec->group))) ||
            (spec->applies_to && json_object_set_new(item, "applies_to", json_string(spec->applies_to))) ||
            json_array_append_new(out, item)) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *stages_json(const mbl_config_t *config) {
    json_t *out = json_array();
    for (size_t i = 0; i < config->stages.count; i++) {
        const mbl_config_stage_t *stage = &config->stages.items[i];
        json_t *names = list_json(&(mbl_field_t){.kind = MBL_FIELD_STRINGS}, &stage->rewards);
        json_t *item = json_pack("{s:I, s:o}", "steps", (json_int_t)stage->steps, "rewards", names);
        json_t *weights = stage->weights ? json_array() : NULL;
        for (size_t j = 0; j < stage->n_weights; j++)
            json_array_append_new(weights, json_real(stage->weights[j]));
        const char *word = mbl_config_word("balance.method", (int)stage->method);
        if ((stage->has_method && json_object_set_new(item, "method", json_string(word))) ||
            (stage->weights && json_object_set_new(item, "weights", weights)) ||
            json_array_append_new(out, item)) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *sources_json(const mbl_config_t *config) {
    json_t *out = json_array();
    for (size_t i = 0; i < config->prompts.sources.count; i++) {
        const mbl_config_prompt_source_t *source = &config->prompts.sources.items[i];
        if (json_array_append_new(out, json_pack("{s:s, s:s, s:f}", "name", source->name, "file",
                                                 source->file, "weight", source->weight))) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *value_json(const mbl_field_t *field, const mbl_config_t *config) {
    const void *place = (const char *)config + field->offset;
    const char *word;
    switch (field->kind) {
    case MBL_FIELD_COUNT:
    case MBL_FIELD_BYTES:
        word = mbl_config_word_of_count(field, *(const size_t *)place);
        return word ? json_string(word) : json_integer((json_int_t) * (const size_t *)place);
    case MBL_FIELD_NUMBER:
    case MBL_FIELD_SECONDS:
        return json_real(*(const double *)place);
    case MBL_FIELD_CHOICE:
        return json_string(field->words[*(const int *)place]);
    case MBL_FIELD_FOLDER:
    case MBL_FIELD_FILE:
    case MBL_FIELD_PATH:
    case MBL_FIELD_TEXT:
    case MBL_FIELD_PLACE:
        return json_string(*(char *const *)place);
    case MBL_FIELD_REWARDS:
        return rewards_json(config);
    case MBL_FIELD_STAGES:
        return stages_json(config);
    case MBL_FIELD_SOURCES:
        return sources_json(config);
    default:
        return list_json(field, place);
    }
}

/* Sets root.a.b.c, making the objects on the way; 0 on success. */
static int set_nested(json_t *root, const char *key, json_t *value) {
    char word[128];
    const char *dot;
    while ((dot = strchr(key, '.'))) {
        snprintf(word, sizeof word, "%.*s", (int)(dot - key), key);
        json_t *child = json_object_get(root, word);
        if (!child) {
            child = json_object();
            if (json_object_set_new(root, word, child)) {
                json_decref(value);
                return -1;
            }
        }
        root = child;
        key = dot + 1;
    }
    return json_object_set_new(root, key, value);
}

mbl_status_t mbl_config_json(const mbl_config_t *config, char **out) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    json_t *root = json_object();
    bool good = root != NULL;
    for (size_t i = 0; i < n && good; i++)
        if (says_something(&fields[i], config))
            good = set_nested(root, fields[i].key, value_json(&fields[i], config)) == 0;
    char *text = good ? json_dumps(root, JSON_REAL_PRECISION(17) | JSON_INDENT(1)) : NULL;
    json_decref(root);
    char *copy = text ? mbl_strdup(text) : NULL;
    free(text);
    if (!copy)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the configuration as JSON");
    *out = copy;
    return MBL_OK;
}
