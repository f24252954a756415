/* The configuration going out: the resolved run.yaml, JSON, and the help of every key. */
#include "config/table.h"

#include "base/mem.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The shortest decimal that reads back as the same double. */
static void write_double(FILE *out, double value) {
    char text[40];
    if (value == floor(value) && fabs(value) < 1e15) {
        fprintf(out, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, out);
}

static void write_quoted(FILE *out, const char *text) {
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f)
            fprintf(out, "\\x%02x", *c);
        else
            fprintf(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    }
    fputc('"', out);
}

static void write_list(FILE *out, const mbl_field_t *field, const void *place) {
    const mbl_config_strings_t *names = place;
    const mbl_config_counts_t *counts = place;
    bool strings = field->kind == MBL_FIELD_STRINGS;
    size_t n = strings ? names->count : counts->count;
    fputc('[', out);
    for (size_t i = 0; i < n; i++) {
        fputs(i ? ", " : "", out);
        if (strings)
            write_quoted(out, names->items[i]);
        else
            fprintf(out, "%zu", counts->items[i]);
    }
    fputc(']', out);
}

static void write_rewards(FILE *out, const mbl_config_t *config) {
    for (size_t i = 0; i < config->rewards.count; i++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[i];
        fputs("  - {name: ", out);
        write_quoted(out, spec->name);
        fputs(", type: ", out);
        write_quoted(out, spec->type);
        fputs(", weight: ", out);
        write_double(out, spec->weight);
        if (spec->group) {
            fputs(", group: ", out);
            write_quoted(out, spec->group);
        }
        if (!isnan(spec->min)) {
            fputs(", min: ", out);
            write_double(out, spec->min);
        }
        fprintf(out, ", on_failure: %s", mbl_config_on_failure_words[spec->on_failure]);
        if (spec->options)
            fprintf(out, ", options: %s", spec->options);
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
            write_double(out, stage->weights[j]);
        }
        fputs(stage->n_weights ? "]}\n" : "}\n", out);
    }
}

/* Lists of mappings, which are left out when there is none. */
static size_t items_of(const mbl_field_t *field, const mbl_config_t *config) {
    return field->kind == MBL_FIELD_REWARDS ? config->rewards.count : config->stages.count;
}

static bool is_list_of_maps(const mbl_field_t *field) {
    return field->kind == MBL_FIELD_REWARDS || field->kind == MBL_FIELD_STAGES;
}

static void write_value(FILE *out, const mbl_field_t *field, const mbl_config_t *config) {
    const void *place = (const char *)config + field->offset;
    switch (field->kind) {
    case MBL_FIELD_COUNT:
    case MBL_FIELD_BYTES:
        fprintf(out, "%zu", *(const size_t *)place);
        break;
    case MBL_FIELD_NUMBER:
    case MBL_FIELD_SECONDS:
        write_double(out, *(const double *)place);
        break;
    case MBL_FIELD_CHOICE:
        fputs(field->words[*(const int *)place], out);
        break;
    case MBL_FIELD_FOLDER:
    case MBL_FIELD_FILE:
        write_quoted(out, *(char *const *)place);
        break;
    default:
        write_list(out, field, place);
    }
}

/* How many leading characters of two keys are whole words they share ("train." of train.lr and train.ema). */
static size_t shared_section(const char *a, const char *b) {
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
    for (size_t i = shared_section(key, previous); key[i]; i++) {
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

static void write_all(FILE *out, const mbl_config_t *config) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    fputs("# The resolved configuration of this run: every key with its value, range and meaning.\n", out);
    for (size_t i = 0; i < n; i++) {
        const mbl_field_t *field = &fields[i];
        const char *dot = strrchr(field->key, '.');
        write_headings(out, field->key, i ? fields[i - 1].key : "");
        if (is_list_of_maps(field)) {
            if (items_of(field, config) == 0)
                continue;
            fprintf(out, "\n%s:  # %s\n", field->key, field->help);
            (field->kind == MBL_FIELD_REWARDS ? write_rewards : write_stages)(out, config);
            continue;
        }
        fprintf(out, "%*s%s: ", 2 * depth_at(field->key, strlen(field->key)), "", dot ? dot + 1 : field->key);
        write_value(out, field, config);
        write_comment(out, field);
    }
}

mbl_status_t mbl_config_write(const mbl_config_t *config, const char *path) {
    char *temporary = mbl_format("%s.partial", path);
    if (!temporary)
        return MBL_FAIL(MBL_ERR_MEM, "no memory to write %s", path);
    FILE *out = fopen(temporary, "w");
    bool good = out != NULL;
    if (out) {
        write_all(out, config);
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
        json_t *options = spec->options ? json_loads(spec->options, 0, NULL) : NULL;
        if ((spec->options && json_object_set_new(item, "options", options)) ||
            (spec->group && json_object_set_new(item, "group", json_string(spec->group))) ||
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

static json_t *value_json(const mbl_field_t *field, const mbl_config_t *config) {
    const void *place = (const char *)config + field->offset;
    switch (field->kind) {
    case MBL_FIELD_COUNT:
    case MBL_FIELD_BYTES:
        return json_integer((json_int_t) * (const size_t *)place);
    case MBL_FIELD_NUMBER:
    case MBL_FIELD_SECONDS:
        return json_real(*(const double *)place);
    case MBL_FIELD_CHOICE:
        return json_string(field->words[*(const int *)place]);
    case MBL_FIELD_FOLDER:
    case MBL_FIELD_FILE:
        return json_string(*(char *const *)place);
    case MBL_FIELD_REWARDS:
        return rewards_json(config);
    case MBL_FIELD_STAGES:
        return stages_json(config);
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
        if (!is_list_of_maps(&fields[i]) || items_of(&fields[i], config) > 0)
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

static const char *kind_name(mbl_field_kind_t kind) {
    static const char *const names[] = {"whole", "bytes", "number",  "seconds", "choice", "folder",
                                        "file",  "names", "numbers", "list",    "list"};
    return names[kind];
}

void mbl_config_help(FILE *out) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    fputs("Keys of run.yaml. Every one has a default; --set KEY=VALUE overrides the file, for instance\n"
          "--set train.lr=1e-4 --set 'model.lora.targets=[attn.to_q, attn.to_k]' --set rewards.0.weight=2.\n"
          "Paths are looked up from the current folder, then from the folder of the file.\n",
          out);
    for (size_t i = 0; i < n; i++) {
        char range[200], section[128];
        const mbl_field_t *field = &fields[i];
        size_t end = strrchr(field->key, '.') ? (size_t)(strrchr(field->key, '.') - field->key) : 0;
        const char *previous = i ? fields[i - 1].key : "";
        if (i == 0 || shared_section(field->key, previous) != (end ? end + 1 : 0)) {
            snprintf(section, sizeof section, "%.*s", (int)end, field->key);
            const char *help = mbl_config_section_help(section);
            fprintf(out, "\n%s%s%s\n", section, *help ? ": " : "", help);
        } else if (!end && strchr(previous, '.'))
            fputc('\n', out);
        mbl_config_range(field, range, sizeof range);
        fprintf(out, "  %-38s %s%s%s%s%s\n", field->key,
                field->kind == MBL_FIELD_CHOICE ? "" : kind_name(field->kind),
                range[0] && field->kind != MBL_FIELD_CHOICE ? ", " : "", range, field->unit ? ", " : "",
                field->unit ? field->unit : "");
        fprintf(out, "      %s%s%s%s\n", field->help, field->fallback[0] ? " [default: " : "",
                field->fallback, field->fallback[0] ? "]" : "");
    }
}
