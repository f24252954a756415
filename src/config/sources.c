/* The list `prompts.sources` of a configuration: {file, weight, name}. */
#include "config/table.h"

#include "base/mem.h"
#include "base/suggest.h"

#include <string.h>

static const char *const keys[] = {"file", "weight", "name"};
static const char *const key_help[] = {
    "a .txt or .jsonl of prompts, as for prompts.train",
    "its share of every epoch's prompts, beside the other weights [default: 1]",
    "what metrics and messages call it [default: the file's name without its ending]"};
enum { N_KEYS = sizeof keys / sizeof *keys, MAX_NAME = 32 };
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

static const mbl_field_t file_field = {.kind = MBL_FIELD_FILE,
                                       .offset = offsetof(mbl_config_prompt_source_t, file)};
static const mbl_field_t weight_field = {.kind = MBL_FIELD_NUMBER,
                                         .offset = offsetof(mbl_config_prompt_source_t, weight),
                                         .fallback = "1",
                                         .high = 1e6,
                                         .ends = MBL_FIELD_ABOVE};

const char *mbl_config_source_key(size_t i, const char **help) {
    if (i >= N_KEYS)
        return NULL;
    *help = key_help[i];
    return keys[i];
}

static void free_sources(mbl_config_prompt_source_t *sources, size_t n) {
    for (size_t i = 0; i < n; i++) {
        mbl_free(sources[i].name);
        mbl_free(sources[i].file);
    }
    mbl_free(sources);
}

void mbl_config_free_sources(mbl_config_t *config) {
    free_sources(config->prompts.sources.items, config->prompts.sources.count);
    config->prompts.sources.items = NULL;
    config->prompts.sources.count = 0;
}

static mbl_status_t read_name(char **place, const char *key, const mbl_yaml_node_t *node,
                              mbl_config_problems_t *problems) {
    char shown[80];
    size_t length = node->kind == MBL_YAML_SCALAR ? strlen(node->text) : 0;
    if (length == 0 || length > MAX_NAME || strspn(node->text, LETTERS) != length) {
        mbl_config_problem(problems, node->line,
                           "%s: %s is not a name; expected up to %d letters, digits, _ or -", key,
                           mbl_config_shown(node, shown), MAX_NAME);
        return MBL_OK;
    }
    *place = mbl_strdup(node->text);
    return *place ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %s", key);
}

static void unknown_key(const char *key, const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char hint[MBL_SUGGESTED];
    const char *best = NULL;
    size_t distance = 0;
    for (size_t i = 0; i < N_KEYS; i++)
        mbl_suggest(node->key, keys[i], &best, &distance);
    mbl_config_problem(problems, node->key_line, "%s: unknown key%s; keys of a source: file, weight, name",
                       key, mbl_suggested("", best, hint));
}

/* The file's name without folder and ending, in letters that names have. */
static mbl_status_t default_name(mbl_config_prompt_source_t *source) {
    const char *slash = strrchr(source->file, '/'), *name = slash ? slash + 1 : source->file,
               *dot = strrchr(name, '.');
    size_t length = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    source->name = mbl_format("%.*s", (int)(length < MAX_NAME ? length : MAX_NAME), name);
    if (!source->name)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a name");
    for (char *c = source->name; *c; c++)
        if (!strchr(LETTERS, *c))
            *c = '-';
    return MBL_OK;
}

static mbl_status_t read_key(mbl_config_prompt_source_t *source, size_t i, const mbl_yaml_node_t *node,
                             mbl_config_problems_t *problems) {
    char key[128];
    snprintf(key, sizeof key, "prompts.sources.%zu.%.80s", i, node->key);
    if (strcmp(node->key, "file") == 0)
        return mbl_config_read_field(source, &file_field, key, node, problems);
    if (strcmp(node->key, "weight") == 0)
        return mbl_config_read_field(source, &weight_field, key, node, problems);
    if (strcmp(node->key, "name") == 0)
        return read_name(&source->name, key, node, problems);
    unknown_key(key, node, problems);
    return MBL_OK;
}

static mbl_status_t read_source(mbl_config_prompt_source_t *source, size_t i, const mbl_yaml_node_t *item,
                                mbl_config_problems_t *problems) {
    char shown[80];
    size_t before = problems->count;
    source->weight = 1;
    if (item->kind != MBL_YAML_MAP) {
        mbl_config_problem(problems, item->line,
                           "prompts.sources.%zu: %s is not a mapping; expected {file: ocr.txt, weight: 2}", i,
                           mbl_config_shown(item, shown));
        return MBL_OK;
    }
    for (const mbl_yaml_node_t *child = item->first; child; child = child->next) {
        if (mbl_yaml_find(item, child->key) != child)
            mbl_config_problem(problems, child->key_line, "prompts.sources.%zu.%.80s: given twice; keep one",
                               i, child->key);
        else
            MBL_TRY(read_key(source, i, child, problems));
    }
    if (problems->count == before && (!source->file || !source->file[0]))
        mbl_config_problem(problems, item->line,
                           "prompts.sources.%zu: has no file; expected {file: ocr.txt, weight: 2}", i);
    return source->file && !source->name ? default_name(source) : MBL_OK;
}

static void find_duplicates(const mbl_config_prompt_source_t *sources, size_t n, int line,
                            mbl_config_problems_t *problems) {
    for (size_t i = 1; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (sources[i].name && sources[j].name && strcmp(sources[i].name, sources[j].name) == 0)
                mbl_config_problem(problems, line,
                                   "prompts.sources.%zu.name: \"%s\" is the name of prompts.sources.%zu too; "
                                   "give each its own",
                                   i, sources[i].name, j);
}

mbl_status_t mbl_config_read_sources(mbl_config_t *config, const mbl_yaml_node_t *list,
                                     mbl_config_problems_t *problems) {
    mbl_status_t status = MBL_OK;
    mbl_config_prompt_source_t *sources = NULL;
    size_t n = 0, i = 0;
    for (const mbl_yaml_node_t *item = list->first; item; item = item->next)
        n++;
    if (n == 0 || n > MBL_PROMPT_SOURCES) {
        mbl_config_problem(
            problems, list->line,
            "prompts.sources: a list of %zu; expected 1 to %d, such as [{file: ocr.txt, weight: "
            "2}], or no key",
            n, MBL_PROMPT_SOURCES);
        return MBL_OK;
    }
    MBL_ALLOC(sources, n);
    for (const mbl_yaml_node_t *item = list->first; item; item = item->next, i++)
        MBL_TRY_GOTO(read_source(&sources[i], i, item, problems), failed);
    find_duplicates(sources, n, list->line, problems);
    mbl_config_free_sources(config);
    config->prompts.sources.items = sources;
    config->prompts.sources.count = n;
    return MBL_OK;
failed:
    free_sources(sources, n);
    return status;
}
