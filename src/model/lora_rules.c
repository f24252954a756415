/* PEFT's LoraConfig, read as PEFT reads it. */
#include "model/lora_in.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Keys that change nothing of what an adapter in a file does: where matrices were put (the file has them),
 * how they were begun and trained, who wrote them. */
static const char *const harmless[] = {
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "lora_dropout", "auto_mapping",
    "peft_version", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "runtime_config", "megatron_core", "qalora_group_size", "eva_config", "loftq_config", "corda_config",
    "lora_ga_config", "ensure_weight_tying", "megatron_config",
    /* PEFT turns it off for the linears of transformers like these, which store [out, in] */
    "fan_in_fan_out"};
/* Keys read below. */
static const char *const read_here[] = {
    "peft_type",     "r",    "lora_alpha",       "use_rslora", "rank_pattern",
    "alpha_pattern", "bias", "init_lora_weights"};

static bool among(const char *key, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0)
            return true;
    return false;
}

/* Whether Python takes the value for false: what is off, empty or zero. */
static bool is_off(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && !json_string_length(value)) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_number(value) && json_number_value(value) == 0);
}

static mbl_status_t refuse(const char *where, const char *key, const json_t *value, const char *expected) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    mbl_status_t status = MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: %s: found %.80s, expected %s", where, key,
                                   text ? text : "?", expected);
    free(text);
    return status;
}

static mbl_status_t check_words(const char *where, const json_t *config) {
    const json_t *type = json_object_get(config, "peft_type"), *bias = json_object_get(config, "bias");
    const json_t *begun = json_object_get(config, "init_lora_weights");
    const char *how = json_string_value(begun);
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "LORA") != 0))
        return refuse(where, "peft_type", type, "\"LORA\"");
    if (!is_off(bias) && (!json_is_string(bias) || strcmp(json_string_value(bias), "none") != 0))
        return refuse(where, "bias", bias, "\"none\"");
    if (how && strcmp(how, "gaussian") != 0 && strcmp(how, "eva") != 0)
        return refuse(where, "init_lora_weights", begun,
                      "true, false, \"gaussian\" or \"eva\": others change the base model's weights too");
    return MBL_OK;
}

static mbl_status_t check_keys(const char *where, const json_t *config) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)config, key, value) {
        if (!is_off(value) && !among(key, harmless, sizeof harmless / sizeof *harmless) &&
            !among(key, read_here, sizeof read_here / sizeof *read_here))
            return refuse(where, key, value,
                          "it off or absent: adapters that are more than A and B are not read");
    }
    return check_words(where, config);
}

/* Patterns are regular expressions of Python; plain names, in which a dot is any character, with or without ^
 * before, are what is read. */
static mbl_status_t check_patterns(const char *where, const char *name, const json_t *patterns,
                                   double least) {
    const char *key;
    json_t *value;
    if (is_off(patterns))
        return MBL_OK;
    if (!json_is_object(patterns))
        return refuse(where, name, patterns, "names with numbers");
    json_object_foreach((json_t *)(uintptr_t)patterns, key, value) {
        for (const char *c = key + (*key == '^'); *c; c++)
            if (!isalnum((unsigned char)*c) && *c != '_' && *c != '.' && *c != '-')
                return MBL_FAIL(
                    MBL_ERR_UNSUPPORTED,
                    "%s: %s: \"%.80s\": a regular expression; expected the name of a linear or the end of it",
                    where, name, key);
        double number = json_number_value(value);
        if (!json_is_number(value) || !isfinite(number) || number < least ||
            (least > 0 && number != floor(number)))
            return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s.%.80s: is no %s", where, name, key,
                            least > 0 ? "rank; expected a whole number from 1" : "number; expected an alpha");
    }
    return MBL_OK;
}

/* null is not PEFT's default but None, which it fails on where it needs a number or patterns. */
static mbl_status_t check_nulls(const char *where, const json_t *config) {
    static const char *const numbers[] = {"r", "lora_alpha"}, *const patterns[] = {"rank_pattern",
                                                                                   "alpha_pattern"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *number = json_object_get(config, numbers[i]),
                     *pattern = json_object_get(config, patterns[i]);
        if (json_is_null(number))
            return refuse(where, numbers[i], number, "a number, or the key left out, which is 8");
        if (json_is_null(pattern))
            return refuse(where, patterns[i], pattern, "names with numbers, or the key left out");
    }
    return MBL_OK;
}

static mbl_status_t read_rules(mbl_lora_rules_t *rules) {
    const json_t *config = rules->config;
    size_t rank = 8; /* PEFT's defaults */
    rules->alpha = 8;
    MBL_TRY(check_keys(rules->where, config));
    MBL_TRY(check_nulls(rules->where, config));
    MBL_TRY(mbl_json_size(config, rules->where, "r", false, 1, 1 << 20, &rank));
    rules->rank = (double)rank;
    MBL_TRY(mbl_json_real(config, rules->where, "lora_alpha", false, -1e9, 1e9, &rules->alpha));
    const json_t *rslora = json_object_get(config, "use_rslora");
    if (rslora && !json_is_boolean(rslora) && !json_is_null(rslora))
        return refuse(rules->where, "use_rslora", rslora, "true or false");
    rules->rslora = json_is_true(rslora);
    rules->ranks = json_object_get(config, "rank_pattern");
    rules->alphas = json_object_get(config, "alpha_pattern");
    MBL_TRY(check_patterns(rules->where, "rank_pattern", rules->ranks, 1));
    return check_patterns(rules->where, "alpha_pattern", rules->alphas, -1e9);
}

mbl_status_t mbl_lora_rules_read(json_t *config, const char *where, mbl_lora_rules_t *out) {
    mbl_lora_rules_t rules = {.config = config, .where = where};
    mbl_status_t status = read_rules(&rules);
    if (status == MBL_OK)
        *out = rules;
    else
        json_decref(config);
    return status;
}

void mbl_lora_rules_free(mbl_lora_rules_t *rules) {
    json_decref(rules->config);
    *rules = (mbl_lora_rules_t){0};
}

/* As re.match("(.*\.)?(PATTERN)$") of Python for what check_patterns lets through. */
static bool matches(const char *pattern, const char *site) {
    bool whole = *pattern == '^';
    pattern += whole;
    size_t n = strlen(pattern), length = strlen(site);
    if (n > length || (whole && n != length))
        return false;
    const char *tail = site + length - n;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] != '.' && pattern[i] != tail[i])
            return false;
    return tail == site || tail[-1] == '.';
}

/* The number of the first pattern that matches, in the order of the file. */
static double number_for(const json_t *patterns, const char *site, double fallback) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)patterns, key, value) {
        if (matches(key, site))
            return json_number_value(value);
    }
    return fallback;
}

/* Whether PEFT would put an adapter there; a regular expression is taken at its word. */
static bool is_target(const json_t *targets, const char *site) {
    size_t i;
    json_t *value;
    if (!json_is_array(targets))
        return true;
    json_array_foreach((json_t *)(uintptr_t)targets, i, value) {
        const char *name = json_string_value(value);
        size_t n = name ? strlen(name) : 0, length = strlen(site);
        if (n > 0 && n <= length && strcmp(site + length - n, name) == 0 &&
            (n == length || site[length - n - 1] == '.'))
            return true;
    }
    return false;
}

mbl_status_t mbl_lora_rules_scale(const mbl_lora_rules_t *rules, const char *site, size_t rank, double *out) {
    *out = 1;
    if (!rules->config)
        return MBL_OK;
    double expected = number_for(rules->ranks, site, rules->rank);
    if (!is_target(json_object_get(rules->config, "target_modules"), site))
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: target_modules: does not name %s, for which the file has matrices", rules->where,
                        site);
    if ((double)rank != expected)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: r: %g for %s, whose matrices have rank %zu; expected %zu",
                        rules->where, expected, site, rank, rank);
    double alpha = number_for(rules->alphas, site, rules->alpha);
    *out = alpha / (rules->rslora ? sqrt((double)rank) : (double)rank);
    return MBL_OK;
}
