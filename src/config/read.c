/* From nodes to the struct: one value at a time, with its type, unit and range; and the walk over the tree.
 */
#include "config/table.h"

#include "base/mem.h"
#include "base/suggest.h"
#include "base/unicode.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 256, MAX_PROBLEMS = 20 };

static void describe(const mbl_config_origin_t *origin, int line, char *out, size_t size) {
    if (line > 0)
        snprintf(out, size, "%.300s:%d", origin->file, line);
    else if (line < 0 && (size_t)-line <= origin->n_sets)
        snprintf(out, size, "--set %.200s", origin->sets[-line - 1]);
    else
        snprintf(out, size, "%.300s", origin->file);
}

static bool lists(void) {
    return mbl_log_rank() == 0 && !mbl_fail_is_quiet();
}

static void log_problem(const char *text) {
    if (lists())
        MBL_ERROR("%s", text);
}

void mbl_config_problem(mbl_config_problems_t *problems, int line, const char *format, ...) {
    char where[400], text[sizeof problems->first];
    describe(problems->origin, line, where, sizeof where);
    int used = snprintf(text, sizeof text, "%s: ", where);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, args);
    va_end(args);
    problems->count++;
    if (problems->count == 1)
        memcpy(problems->first, text, sizeof text);
    else if (problems->count <= MAX_PROBLEMS) {
        if (problems->count == 2)
            log_problem(problems->first);
        log_problem(text);
    }
}

mbl_status_t mbl_config_problems_end(mbl_config_problems_t *problems) {
    if (problems->count == 0)
        return MBL_OK;
    if (problems->count == 1)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s", problems->first);
    if (!lists()) /* the list is rank 0's; this is logged where rank 0 found none, or is an answer to somebody
                   */
        return MBL_FAIL(MBL_ERR_CONFIG, "%s (and %zu more)", problems->first, problems->count - 1);
    return MBL_FAIL(MBL_ERR_CONFIG, "%.300s: %zu problems, %s; correct them and start again",
                    problems->origin->file, problems->count,
                    problems->count > MAX_PROBLEMS ? "the first 20 above" : "all above");
}

char *mbl_config_where(const mbl_config_t *config, const char *key, char *out, size_t size) {
    char where[400];
    const mbl_field_t *field = mbl_config_field(key);
    size_t n;
    int line = field ? config->origin->lines[field - mbl_config_fields(&n)] : 0;
    describe(config->origin, line, where, sizeof where);
    snprintf(out, size, "%s: %s", where, key);
    return out;
}

char *mbl_config_where_reward(const mbl_config_t *config, size_t k, char *out, size_t size) {
    char where[400];
    describe(config->origin, config->origin->reward_lines[k], where, sizeof where);
    snprintf(out, size, "%s: rewards.%zu", where, k);
    return out;
}

bool mbl_config_printable(const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0) ||
            (*c == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9)))
            return false;
    return true;
}

char *mbl_config_shown(const mbl_yaml_node_t *node, char out[80]) {
    if (node->kind != MBL_YAML_SCALAR) {
        snprintf(out, 80, "%s", node->kind == MBL_YAML_LIST ? "a list" : "a mapping");
        return out;
    }
    bool number = node->text[0] && strspn(node->text, "+-.0123456789eE") == strlen(node->text);
    snprintf(out, 80, number ? "%.60s%s" : "\"%.60s%s\"", node->text, strlen(node->text) > 60 ? "..." : "");
    for (unsigned char *c = (unsigned char *)out; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return out;
}

/* Reports a value that is not what the field takes. */
static void wrong_value(mbl_config_problems_t *problems, const mbl_field_t *field, const char *key,
                        const mbl_yaml_node_t *node, const char *complaint) {
    char shown[80], expected[400];
    mbl_config_problem(problems, node->line, "%s: %s %s; expected %s", key, mbl_config_shown(node, shown),
                       complaint, mbl_config_expected(field, expected, sizeof expected));
}

static bool in_range(const mbl_field_t *field, double value) {
    bool low = field->ends & MBL_FIELD_ABOVE ? value > field->low : value >= field->low;
    bool high = field->ends & MBL_FIELD_BELOW ? value < field->high : value <= field->high;
    return low && high;
}

/* The factor of a unit after a number; 0 for one that is unknown. */
static double unit_factor(mbl_field_kind_t kind, const char *unit) {
    static const struct {
        mbl_field_kind_t kind;
        const char *name;
        double factor;
    } units[] = {{MBL_FIELD_BYTES, "KiB", 1024},       {MBL_FIELD_BYTES, "MiB", 1048576},
                 {MBL_FIELD_BYTES, "GiB", 1073741824}, {MBL_FIELD_BYTES, "bytes", 1},
                 {MBL_FIELD_SECONDS, "s", 1},          {MBL_FIELD_SECONDS, "min", 60},
                 {MBL_FIELD_SECONDS, "h", 3600},       {MBL_FIELD_SECONDS, "seconds", 1}};
    while (*unit == ' ')
        unit++;
    if (!*unit)
        return 1;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (units[i].kind == kind && strcmp(units[i].name, unit) == 0)
            return units[i].factor;
    return 0;
}

/* A whole number of decimal digits (at most MBL_FIELD_LARGE) with its unit. */
static bool parse_count(mbl_field_kind_t kind, const char *text, double *value) {
    size_t digits = strspn(text, "0123456789");
    double factor = unit_factor(kind, text + digits);
    if (digits == 0 || digits > 300 || factor == 0)
        return false;
    *value = strtod(text, NULL) * factor;
    return true;
}

static bool parse_number(mbl_field_kind_t kind, const char *text, double *value) {
    char *end;
    if (text[strcspn(text, "xXnN")] && kind != MBL_FIELD_SECONDS) /* no hexadecimal, nan, inf */
        return false;
    if (!strchr("+-.0123456789", text[0]) || !text[0])
        return false;
    *value = strtod(text, &end);
    double factor = end == text ? 0 : unit_factor(kind, end);
    *value *= factor;
    return factor != 0 && isfinite(*value);
}

static void read_numeric(char *place, const mbl_field_t *field, const char *key, const mbl_yaml_node_t *node,
                         mbl_config_problems_t *problems) {
    bool whole = field->kind == MBL_FIELD_COUNT || field->kind == MBL_FIELD_BYTES;
    double value, ignored;
    for (size_t i = 0; field->kind == MBL_FIELD_COUNT && field->words && field->words[i]; i++)
        if (strcmp(field->words[i], node->text) == 0) {
            *(uint64_t *)(void *)place = mbl_config_count_of_word(i);
            return;
        }
    if (!(whole ? parse_count : parse_number)(field->kind, node->text, &value)) {
        bool other = whole && parse_number(MBL_FIELD_NUMBER, node->text, &ignored);
        wrong_value(problems, field, key, node,
                    other && ignored < 0 ? "is out of range"
                    : whole              ? "is not a whole number"
                                         : "is not a number");
    } else if (!in_range(field, value))
        wrong_value(problems, field, key, node, "is out of range");
    else if (whole)
        *(uint64_t *)(void *)place = (uint64_t)value;
    else
        *(double *)(void *)place = value;
}

static void read_choice(char *place, const mbl_field_t *field, const char *key, const mbl_yaml_node_t *node,
                        mbl_config_problems_t *problems) {
    char full[PATH_SIZE], complaint[PATH_SIZE];
    const char *best = NULL;
    size_t distance = 0;
    /* on, read as true by YAML 1.1 and written back so */
    int truth = node->quoted ? -1 : mbl_yaml_boolean(node->text);
    for (int i = 0; field->words[i]; i++) {
        if (strcmp(field->words[i], node->text) == 0 ||
            (truth >= 0 && truth == mbl_yaml_boolean(field->words[i]))) {
            *(int *)(void *)place = i;
            return;
        }
        mbl_suggest(node->text, field->words[i], &best, &distance);
    }
    snprintf(full, sizeof full, "%s=%.100s", key, node->text);
    snprintf(complaint, sizeof complaint,
             mbl_config_is_unsupported(full) ? "is not supported by this version"
             : best                          ? "is not a choice; did you mean %s?"
                                             : "is not a choice",
             best);
    wrong_value(problems, field, key, node, complaint);
}

static mbl_status_t set_string(char **place, const char *text) {
    char *copy = mbl_strdup(text);
    if (!copy)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a value of the configuration");
    mbl_free(*place);
    *place = copy;
    return MBL_OK;
}

static bool is_utf8(const char *text) {
    size_t left = strlen(text), n;
    uint32_t c;
    for (; left > 0; text += n, left -= n) {
        n = mbl_utf8_decode(text, left, &c);
        if (c == 0xfffd && (n != 3 || memcmp(text, "\xef\xbf\xbd", 3) != 0))
            return false;
    }
    return true;
}

/* An existing folder or file, seen from here or from the folder of the configuration, made absolute. */
static mbl_status_t read_path(char *place, const mbl_field_t *field, const char *key,
                              const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char found[PATH_MAX], joined[PATH_MAX];
    const char *file = problems->origin->file, *slash = strrchr(file, '/');
    struct stat info;
    if (node->text[0] == 0)
        return set_string((char **)(void *)place, "");
    snprintf(joined, sizeof joined, "%.*s%s", node->text[0] == '/' || !slash ? 0 : (int)(slash + 1 - file),
             file, node->text);
    if (!mbl_config_printable(node->text) || ((!realpath(node->text, found) || stat(found, &info) != 0) &&
                                              (!realpath(joined, found) || stat(found, &info) != 0)))
        wrong_value(problems, field, key, node,
                    field->kind == MBL_FIELD_FOLDER && mbl_is_hub_name(node->text)
                        ? "looks like a model's name on a hub, of which marble downloads nothing"
                    : node->text[0] == '/'
                        ? "does not exist"
                        : "does not exist, neither from here nor beside the configuration");
    else if (field->kind != MBL_FIELD_PATH && S_ISDIR(info.st_mode) != (field->kind == MBL_FIELD_FOLDER))
        wrong_value(problems, field, key, node, S_ISDIR(info.st_mode) ? "is a folder" : "is not a folder");
    else if (!mbl_config_printable(found) ||
             !is_utf8(found)) /* a name above it: run.yaml could not hold it */
        wrong_value(problems, field, key, node,
                    "lies in a folder whose name has control characters or is not UTF-8");
    else
        return set_string((char **)(void *)place, found);
    return MBL_OK;
}

/* A word, or a folder seen from here, made absolute, which whoever writes into it makes. */
static mbl_status_t read_place(char *place, const mbl_field_t *field, const char *key,
                               const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char here[PATH_MAX], joined[PATH_MAX];
    struct stat info;
    const char *text = node->text;
    int truth = node->quoted ? -1 : mbl_yaml_boolean(text);
    for (int i = 0; field->words[i]; i++)
        if (strcmp(text, field->words[i]) == 0 || (truth >= 0 && truth == mbl_yaml_boolean(field->words[i])))
            return set_string((char **)(void *)place, field->words[i]);
    if (text[0] != '/' && !getcwd(here, sizeof here))
        return MBL_FAIL(MBL_ERR_IO, "the current folder cannot be found: %s", strerror(errno));
    int n = snprintf(joined, sizeof joined, "%s%s%s", text[0] == '/' ? "" : here, text[0] == '/' ? "" : "/",
                     text);
    if (!text[0] || truth >= 0 || !mbl_config_printable(joined) || !is_utf8(joined) || n >= PATH_MAX)
        wrong_value(problems, field, key, node, "is no path");
    else if (stat(joined, &info) == 0 && !S_ISDIR(info.st_mode))
        wrong_value(problems, field, key, node, "is not a folder");
    else
        return set_string((char **)(void *)place, joined);
    return MBL_OK;
}

static void free_strings(mbl_config_strings_t *list) {
    for (size_t i = 0; i < list->count; i++)
        mbl_free(list->items[i]);
    mbl_free(list->items);
    *list = (mbl_config_strings_t){0};
}

/* The next of a list, or the end where a single value stands for a list of one. */
static const mbl_yaml_node_t *next_item(const mbl_yaml_node_t *node, const mbl_yaml_node_t *item) {
    return node->kind == MBL_YAML_LIST ? item->next : NULL;
}

static mbl_status_t read_strings(mbl_config_strings_t *place, const mbl_field_t *field, const char *key,
                                 const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    mbl_config_strings_t list = {0};
    size_t n = 0;
    const mbl_yaml_node_t *first = node->kind == MBL_YAML_LIST ? node->first : node;
    for (const mbl_yaml_node_t *item = first; item; item = next_item(node, item), n++)
        if (item->kind != MBL_YAML_SCALAR || !item->text[0] || !mbl_config_printable(item->text)) {
            wrong_value(problems, field, key, item, "is not a name");
            return MBL_OK;
        }
    for (const mbl_yaml_node_t *item = first; item; item = next_item(node, item))
        if (strlen(item->text) >= MBL_LORA_TARGET_SIZE) {
            mbl_config_problem(problems, item->line, "%s: a name of %zu letters; expected at most %d", key,
                               strlen(item->text), MBL_LORA_TARGET_SIZE - 1);
            return MBL_OK;
        }
    if ((double)n < field->low || (double)n > field->high) {
        mbl_config_problem(problems, node->line, "%s: a list of %zu; expected %g to %g names", key, n,
                           field->low, field->high);
        return MBL_OK;
    }
    MBL_ALLOC(list.items, n);
    for (const mbl_yaml_node_t *item = first; item; item = next_item(node, item)) {
        list.items[list.count] = mbl_strdup(item->text);
        if (!list.items[list.count++]) {
            free_strings(&list);
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %s", key);
        }
    }
    free_strings(place);
    *place = list;
    return MBL_OK;
}

static mbl_status_t read_counts(mbl_config_counts_t *place, const mbl_field_t *field, const char *key,
                                const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    mbl_config_counts_t list = {0};
    double value;
    size_t n = 0;
    for (const mbl_yaml_node_t *item = node->first; item; item = item->next, n++)
        if (item->kind != MBL_YAML_SCALAR || !parse_count(MBL_FIELD_COUNT, item->text, &value) ||
            !in_range(field, value)) {
            wrong_value(problems, field, key, item, "is not a whole number in its range");
            return MBL_OK;
        }
    if (n > 256) {
        mbl_config_problem(problems, node->line, "%s: a list of %zu; expected at most 256 numbers", key, n);
        return MBL_OK;
    }
    MBL_ALLOC(list.items, n);
    for (const mbl_yaml_node_t *item = node->first; item; item = item->next)
        list.items[list.count++] = strtoull(item->text, NULL, 10);
    mbl_free(place->items);
    *place = list;
    return MBL_OK;
}

mbl_status_t mbl_config_read_field(void *base, const mbl_field_t *field, const char *key,
                                   const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char *place = (char *)base + field->offset;
    bool list = field->kind >= MBL_FIELD_STRINGS;
    /* Names that may be left out may also be one name. */
    bool one = field->kind == MBL_FIELD_STRINGS && field->low == 0 && node->kind == MBL_YAML_SCALAR;
    if (one && (node->text[0] || node->quoted))
        return read_strings((mbl_config_strings_t *)(void *)place, field, key, node, problems);
    if (list ? node->kind != MBL_YAML_LIST : node->kind != MBL_YAML_SCALAR) {
        wrong_value(problems, field, key, node, list ? "is not a list" : "is not a single value");
        return MBL_OK;
    }
    if (!list && !node->quoted &&
        (!node->text[0] || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0)) {
        wrong_value(problems, field, key, node, "is empty");
        return MBL_OK;
    }
    switch (field->kind) {
    case MBL_FIELD_CHOICE:
        read_choice(place, field, key, node, problems);
        return MBL_OK;
    case MBL_FIELD_FOLDER:
    case MBL_FIELD_FILE:
    case MBL_FIELD_PATH:
        return read_path(place, field, key, node, problems);
    case MBL_FIELD_TEXT:
        if (mbl_config_printable(node->text) && is_utf8(node->text))
            return set_string((char **)(void *)place, node->text);
        wrong_value(problems, field, key, node, "has control characters or is not UTF-8");
        return MBL_OK;
    case MBL_FIELD_PLACE:
        return read_place(place, field, key, node, problems);
    case MBL_FIELD_STRINGS:
        return read_strings((mbl_config_strings_t *)(void *)place, field, key, node, problems);
    case MBL_FIELD_COUNTS:
        return read_counts((mbl_config_counts_t *)(void *)place, field, key, node, problems);
    case MBL_FIELD_REWARDS:
        return mbl_config_read_rewards(base, node, problems);
    case MBL_FIELD_STAGES:
        return mbl_config_read_stages(base, node, problems);
    case MBL_FIELD_SOURCES:
        return mbl_config_read_sources(base, node, problems);
    default:
        read_numeric(place, field, key, node, problems);
        return MBL_OK;
    }
}

/* The default "a, b, c" of a list of names. */
static mbl_status_t default_strings(mbl_config_strings_t *place, const char *text) {
    size_t n = 1;
    for (const char *c = text; *c; c++)
        n += *c == ',';
    MBL_ALLOC(place->items, n);
    while (*text) {
        size_t length = strcspn(text, ",");
        char *copy = mbl_format("%.*s", (int)length, text);
        if (!copy)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for the defaults of the configuration");
        place->items[place->count++] = copy;
        text += length + strspn(text + length, ", ");
    }
    return MBL_OK;
}

mbl_status_t mbl_config_defaults(mbl_config_t *config) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    mbl_config_problems_t problems = {.origin = config->origin};
    for (size_t i = 0; i < n; i++) {
        char text[64], *place = (char *)config + fields[i].offset;
        if (fields[i].kind == MBL_FIELD_STRINGS)
            MBL_TRY(default_strings((mbl_config_strings_t *)(void *)place, fields[i].fallback));
        if (fields[i].kind >= MBL_FIELD_STRINGS)
            continue;
        snprintf(text, sizeof text, "%s", fields[i].fallback);
        mbl_yaml_node_t node = {.kind = MBL_YAML_SCALAR, .quoted = true, .text = text};
        MBL_TRY(mbl_config_read_field(config, &fields[i], fields[i].key, &node, &problems));
    }
    return mbl_config_problems_end(&problems); /* a default outside its own range */
}

/* The last word of every key directly in `section`, for messages. */
static void list_keys(const char *section, char *out, size_t size) {
    size_t n, used = 0, skip = strlen(section);
    const mbl_field_t *fields = mbl_config_fields(&n);
    char last[64] = "";
    out[0] = 0;
    for (size_t i = 0; i < n && used < size; i++) {
        const char *rest = fields[i].key + (skip ? skip + 1 : 0);
        if (skip && (strncmp(fields[i].key, section, skip) != 0 || fields[i].key[skip] != '.'))
            continue;
        int length = (int)strcspn(rest, ".");
        if ((int)strlen(last) == length && strncmp(last, rest, (size_t)length) == 0)
            continue;
        used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? ", " : "", length, rest);
        snprintf(last, sizeof last, "%.*s", length, rest);
    }
}

/* Says what an unknown key may have been meant to be: the nearest in its section, else the same word
 * elsewhere. */
static void unknown_key(const char *section, const char *path, const mbl_yaml_node_t *node,
                        mbl_config_problems_t *problems) {
    char hint[MBL_SUGGESTED];
    char keys[600], guess[PATH_SIZE] = "", word[64];
    const char *elsewhere = NULL;
    size_t n, distance = 0, skip = strlen(section);
    const mbl_field_t *fields = mbl_config_fields(&n);
    for (size_t i = 0; i < n; i++) {
        const char *key = fields[i].key, *dot = strrchr(key, '.'), *best = guess[0] ? guess : NULL;
        if (strcmp(dot ? dot + 1 : key, node->key) == 0 && !elsewhere)
            elsewhere = key;
        if (skip && (strncmp(key, section, skip) != 0 || key[skip] != '.'))
            continue;
        const char *rest = key + (skip ? skip + 1 : 0);
        snprintf(word, sizeof word, "%.*s", (int)strcspn(rest, "."), rest);
        mbl_suggest(node->key, word, &best, &distance);
        if (best == word)
            snprintf(guess, sizeof guess, "%.100s%s%s", section, skip ? "." : "", word);
    }
    list_keys(section, keys, sizeof keys);
    const char *meant = guess[0] ? guess : elsewhere;
    mbl_config_problem(problems, node->key_line, "%.200s: unknown key%s; keys %s%s: %s", path,
                       mbl_suggested("", meant, hint), skip ? "of " : "at the top", section, keys);
}

static mbl_status_t read_map(mbl_config_t *config, const mbl_yaml_node_t *map, const char *section,
                             mbl_config_problems_t *problems);

/* Whether a key is one of earlier versions; what it says is a problem unless that is what is always done. */
static bool read_retired(const char *path, const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char shown[80];
    const mbl_config_retired_t *key;
    for (size_t i = 0; (key = mbl_config_retired(i)); i++) {
        if (strcmp(path, key->key) != 0)
            continue;
        if (node->kind != MBL_YAML_SCALAR || strcmp(node->text, key->kept) != 0)
            mbl_config_problem(problems, node->key_line,
                               "%s: %s is not supported any longer, %s; expected %s, or leave the key out",
                               path, mbl_config_shown(node, shown), key->why, key->kept);
        return true;
    }
    return false;
}

static mbl_status_t read_child(mbl_config_t *config, const mbl_yaml_node_t *node, const char *section,
                               mbl_config_problems_t *problems) {
    char path[PATH_SIZE], shown[80], keys[600];
    size_t n;
    snprintf(path, sizeof path, "%.100s%s%.150s", section, section[0] ? "." : "", node->key);
    const mbl_field_t *field = strchr(node->key, '.') ? NULL : mbl_config_field(mbl_config_renamed(path));
    if (!field && node->kind == MBL_YAML_SCALAR)
        field = mbl_config_shorthand(path);
    if (field) {
        config->origin->lines[field - mbl_config_fields(&n)] = node->key_line;
        return mbl_config_read_field(config, field, path, node, problems);
    }
    if (read_retired(path, node, problems))
        return MBL_OK;
    if (mbl_config_is_unsupported(path))
        mbl_config_problem(problems, node->key_line, "%s: not supported by this version; leave it out", path);
    else if (strchr(node->key, '.') || !mbl_config_is_section(path))
        unknown_key(section, path, node, problems);
    else if (node->kind == MBL_YAML_MAP)
        return read_map(config, node, path, problems);
    else {
        list_keys(path, keys, sizeof keys);
        mbl_config_problem(problems, node->line, "%s: %s is not a mapping; expected keys of %s: %s", path,
                           mbl_config_shown(node, shown), path, keys);
    }
    return MBL_OK;
}

static mbl_status_t read_map(mbl_config_t *config, const mbl_yaml_node_t *map, const char *section,
                             mbl_config_problems_t *problems) {
    for (const mbl_yaml_node_t *child = map->first; child; child = child->next) {
        const mbl_yaml_node_t *first = mbl_yaml_find(map, child->key);
        if (first != child)
            mbl_config_problem(problems, child->key_line,
                               "%s%s%.150s: given twice (first in line %d); keep one", section,
                               section[0] ? "." : "", child->key, first->key_line);
        else
            MBL_TRY(read_child(config, child, section, problems));
    }
    return MBL_OK;
}

/* By default marble_reference solves as seldom as its source does. */
static void default_refresh(mbl_config_t *config) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n), *field = mbl_config_field("balance.refresh_every");
    if (mbl_method_is(config->balance.method, MBL_METHOD_MICRO_BATCHES) &&
        config->origin->lines[field - fields] == 0)
        config->balance.refresh_every = 10;
}

mbl_status_t mbl_config_read(mbl_config_t *config, const mbl_yaml_node_t *root,
                             mbl_config_problems_t *problems) {
    char shown[80];
    if (root->kind != MBL_YAML_MAP) {
        mbl_config_problem(problems, root->line, "%s; expected a mapping of keys, such as seed: 42",
                           mbl_config_shown(root, shown));
        return MBL_OK;
    }
    MBL_TRY(read_map(config, root, "", problems));
    default_refresh(config);
    return MBL_OK;
}
