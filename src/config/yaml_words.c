/* libyaml's complaints in words that say what to change: tabs, indents, brackets and quotes are what people
 * get wrong. */
#include "config/yaml.h"

#include <stdio.h>
#include <string.h>

/* Line `number` of a text, without its end. */
typedef struct {
    const char *start;
    size_t length, indent; /* indent: leading blanks and tabs */
} line_t;

static line_t line_at(const char *text, size_t size, int number) {
    const char *end = text + size, *at = text;
    line_t line;
    for (int i = 1; i < number && at < end; i++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        at = newline ? newline + 1 : end;
    }
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    line = (line_t){at, (size_t)((newline ? newline : end) - at), 0};
    while (line.indent < line.length && (at[line.indent] == ' ' || at[line.indent] == '\t'))
        line.indent++;
    return line;
}

static bool is_empty(const line_t *line) {
    return line->indent == line->length || line->start[line->indent] == '#' ||
           line->start[line->indent] == '\r';
}

/* The last line before `number` with anything in it; line 0 is empty. */
static line_t line_above(const char *text, size_t size, int number) {
    line_t line = {text, 0, 0};
    while (--number > 0) {
        line = line_at(text, size, number);
        if (!is_empty(&line))
            return line;
    }
    return (line_t){text, 0, 0};
}

static bool says(const mbl_yaml_problem_t *problem, const char *part) {
    return strstr(problem->text, part) != NULL;
}

#define WORDS(...) snprintf(problem->text, sizeof problem->text, __VA_ARGS__)

void mbl_yaml_words(const char *text, size_t size, mbl_yaml_problem_t *problem) {
    if (problem->line < 1)
        return;
    line_t line = line_at(text, size, problem->line), above = line_above(text, size, problem->line);
    const char *begins = line.start + line.indent;
    int shown = (int)(line.length - line.indent < 40 ? line.length - line.indent : 40);
    if (memchr(line.start, '\t', line.indent))
        WORDS("a tab in front of \"%.*s\"; expected spaces, two for every level", shown, begins);
    else if (says(problem, "cannot start any token"))
        WORDS("\"%.*s\" has a tab where YAML takes none, or a value that begins with @, ` or %%; expected "
              "spaces, "
              "or the value in quotes",
              shown, begins);
    else if (says(problem, "mapping values are not allowed") && line.indent > above.indent)
        WORDS("\"%.*s\" is indented by %zu, further than the line above (%zu), which has its value already; "
              "expected one indent for all keys of a section",
              shown, begins, line.indent, above.indent);
    else if (says(problem, "mapping values are not allowed"))
        WORDS("\"%.*s\" has a second \": \"; expected one key a line, or the value in quotes", shown, begins);
    else if (says(problem, "did not find expected key") || says(problem, "did not find expected '-'"))
        WORDS(
            "\"%.*s\" is indented by %zu (the line above: %zu) and belongs to no section above; expected one "
            "indent for all keys of a section",
            shown, begins, line.indent, above.indent);
    else if (says(problem, "unexpected end of stream while scanning a quoted"))
        WORDS("a value that begins with a quote and has none at its end");
    else if (says(problem, "expected ',' or '}'"))
        WORDS("a { without its }, or a comma missing, in or above \"%.*s\"", shown, begins);
    else if (says(problem, "expected ',' or ']'"))
        WORDS("a [ without its ], or a comma missing, in or above \"%.*s\"", shown, begins);
}
