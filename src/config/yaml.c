/* libyaml's events into a bounded tree. Aliases are refused: a configuration does not need them, and they let
 * a small file stand for a huge one. */
#include "config/yaml.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

typedef struct {
    yaml_parser_t parser;
    mbl_yaml_node_t *root, *stack[MBL_YAML_MAX_DEPTH];
    size_t depth;
    char *key; /* of the value to come */
    int key_line, line;
    bool done; /* a document has ended */
    mbl_yaml_problem_t *problem;
} reader_t;

void mbl_yaml_free(mbl_yaml_node_t *node) {
    while (node) {
        mbl_yaml_node_t *next = node->next;
        mbl_yaml_free(node->first); /* no deeper than MBL_YAML_MAX_DEPTH, plus the path of a --set */
        mbl_free(node->key);
        mbl_free(node->text);
        mbl_free(node);
        node = next;
    }
}

mbl_yaml_node_t *mbl_yaml_map(int line) {
    mbl_yaml_node_t *node = mbl_calloc(1, sizeof *node);
    if (node) {
        node->kind = MBL_YAML_MAP;
        node->line = node->key_line = line;
    }
    return node;
}

mbl_yaml_node_t *mbl_yaml_find(const mbl_yaml_node_t *map, const char *key) {
    for (mbl_yaml_node_t *child = map->first; child; child = child->next)
        if (child->key && strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

mbl_yaml_node_t *mbl_yaml_at(const mbl_yaml_node_t *node, size_t i) {
    mbl_yaml_node_t *child = node->first;
    while (child && i-- > 0)
        child = child->next;
    return child;
}

void mbl_yaml_append(mbl_yaml_node_t *parent, mbl_yaml_node_t *child) {
    *(parent->last ? &parent->last->next : &parent->first) = child;
    parent->last = child;
}

void mbl_yaml_replace(mbl_yaml_node_t *parent, mbl_yaml_node_t *old, mbl_yaml_node_t *next) {
    mbl_yaml_node_t **slot = &parent->first;
    while (*slot != old)
        slot = &(*slot)->next;
    *slot = next;
    next->next = old->next;
    mbl_free(next->key);
    next->key = old->key;
    if (parent->last == old)
        parent->last = next;
    old->next = NULL;
    old->key = NULL;
    mbl_yaml_free(old);
}

static mbl_status_t wrong(reader_t *reader, size_t line, const char *text) {
    reader->problem->line = reader->line ? reader->line : (int)line + 1;
    snprintf(reader->problem->text, sizeof reader->problem->text, "%s", text);
    return MBL_ERR_FORMAT;
}

static char *copy(const unsigned char *text, size_t length) {
    char *out = mbl_calloc(length + 1, 1);
    if (out)
        memcpy(out, text, length);
    return out;
}

/* Hangs a value into the container on top of the stack, or makes it the root. */
static mbl_status_t place(reader_t *reader, mbl_yaml_kind_t kind, const yaml_event_t *event,
                          mbl_yaml_node_t **out) {
    mbl_yaml_node_t *node = NULL;
    MBL_ALLOC(node, 1);
    node->kind = kind;
    node->line = reader->line ? reader->line : (int)event->start_mark.line + 1;
    node->key = reader->key;
    node->key_line = reader->key ? reader->key_line : node->line;
    reader->key = NULL;
    if (reader->depth)
        mbl_yaml_append(reader->stack[reader->depth - 1], node);
    else
        reader->root = node;
    *out = node;
    return MBL_OK;
}

static mbl_status_t on_scalar(reader_t *reader, const yaml_event_t *event) {
    const unsigned char *value = event->data.scalar.value;
    size_t length = event->data.scalar.length, line = event->start_mark.line;
    mbl_yaml_node_t *node = NULL;
    if (memchr(value, 0, length))
        return wrong(reader, line, "a zero byte inside a value");
    char *text = copy(value, length);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a value of %zu bytes", length);
    bool in_map = reader->depth && reader->stack[reader->depth - 1]->kind == MBL_YAML_MAP;
    if (in_map && !reader->key) {
        reader->key = text;
        reader->key_line = reader->line ? reader->line : (int)line + 1;
        return MBL_OK;
    }
    mbl_status_t status = place(reader, MBL_YAML_SCALAR, event, &node);
    if (status != MBL_OK) {
        mbl_free(text);
        return status;
    }
    node->text = text;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return MBL_OK;
}

static mbl_status_t on_open(reader_t *reader, mbl_yaml_kind_t kind, const yaml_event_t *event) {
    mbl_yaml_node_t *node = NULL;
    if (reader->depth == MBL_YAML_MAX_DEPTH)
        return wrong(reader, event->start_mark.line, "nested deeper than 16 levels");
    bool in_map = reader->depth && reader->stack[reader->depth - 1]->kind == MBL_YAML_MAP;
    if (in_map && !reader->key)
        return wrong(reader, event->start_mark.line, "a key that is a list or a mapping");
    MBL_TRY(place(reader, kind, event, &node));
    reader->stack[reader->depth++] = node;
    return MBL_OK;
}

static mbl_status_t on_event(reader_t *reader, const yaml_event_t *event) {
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(reader, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(reader, MBL_YAML_LIST, event);
    case YAML_MAPPING_START_EVENT:
        return on_open(reader, MBL_YAML_MAP, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        reader->depth--;
        return MBL_OK;
    case YAML_ALIAS_EVENT:
        return wrong(reader, event->start_mark.line,
                     "aliases (*name) are not allowed; write the value again");
    case YAML_DOCUMENT_START_EVENT:
        return reader->done ? wrong(reader, event->start_mark.line, "a second document; one is expected")
                            : MBL_OK;
    case YAML_DOCUMENT_END_EVENT:
        reader->done = true;
        return MBL_OK;
    default:
        return MBL_OK;
    }
}

static mbl_status_t read_events(reader_t *reader) {
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&reader->parser, &event)) {
            const yaml_parser_t *parser = &reader->parser;
            if (parser->error == YAML_MEMORY_ERROR)
                return MBL_FAIL(MBL_ERR_MEM, "no memory to read YAML");
            char text[160];
            snprintf(text, sizeof text, "%s%s%s", parser->problem ? parser->problem : "unreadable",
                     parser->context ? " " : "", parser->context ? parser->context : "");
            return wrong(reader, parser->problem_mark.line, text);
        }
        bool end = event.type == YAML_STREAM_END_EVENT;
        mbl_status_t status = on_event(reader, &event);
        yaml_event_delete(&event);
        if (status != MBL_OK || end)
            return status;
    }
}

mbl_status_t mbl_yaml_parse(const char *text, size_t size, int line, mbl_yaml_node_t **out,
                            mbl_yaml_problem_t *problem) {
    reader_t reader = {.line = line, .problem = problem};
    if (size > MBL_YAML_MAX_BYTES)
        return wrong(&reader, 0, "larger than 1 MiB");
    if (!yaml_parser_initialize(&reader.parser))
        return MBL_FAIL(MBL_ERR_MEM, "no memory to read YAML");
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, size);
    mbl_status_t status = read_events(&reader);
    yaml_parser_delete(&reader.parser);
    mbl_free(reader.key);
    if (status != MBL_OK) {
        mbl_yaml_free(reader.root);
        return status;
    }
    *out = reader.root;
    return MBL_OK;
}
