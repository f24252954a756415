/* The option parser behind every command. */
#include "cli/args.h"

#include "base/mem.h"
#include "base/suggest.h"
#include "cli/args_print.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_list(const mbl_arg_t *arg) {
    return arg->kind == MBL_ARG_TEXTS || arg->kind == MBL_ARG_PHRASES;
}

mbl_status_t mbl_args_printed(const char *command) {
    bool lost = ferror(stdout);
    errno = 0;
    if (fflush(stdout) == 0 && !lost)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_IO, "%s: standard output cannot be written%s%s", command, errno ? ": " : "",
                    errno ? strerror(errno) : "");
}

static mbl_status_t unknown_option(const mbl_args_t *spec, const char *name) {
    char hint[MBL_SUGGESTED];
    const char *best = "help";
    size_t distance = mbl_edit_distance(name, "help");
    if (distance > 1)
        best = NULL;
    for (size_t i = 0; i < spec->n_args; i++)
        mbl_suggest(name, spec->args[i].name, &best, &distance);
    return MBL_FAIL(MBL_ERR_USAGE, "%s: --%.60s: unknown option%s; marble %s --help lists them",
                    spec->command, name, mbl_suggested("--", best, hint), spec->command);
}

static mbl_status_t wrong_value(const mbl_args_t *spec, const mbl_arg_t *arg, const char *text,
                                const char *what) {
    char range[80] = "";
    if (arg->high > arg->low)
        snprintf(range, sizeof range, " in [%g, %g]", arg->low, arg->high);
    else if (arg->kind == MBL_ARG_COUNT)
        snprintf(range, sizeof range, ", at least %g", arg->low);
    return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s: \"%.60s\" %s; expected %s%s", spec->command, arg->name, text,
                    what, arg->kind == MBL_ARG_COUNT ? "a whole number" : "a number", range);
}

static mbl_status_t set_number(const mbl_args_t *spec, const mbl_arg_t *arg, const char *text) {
    char *end;
    bool whole = arg->kind == MBL_ARG_COUNT;
    double value = strtod(text, &end);
    bool digits = text[0] && strspn(text, "0123456789") == strlen(text);
    if (*end || end == text || !isfinite(value) || strpbrk(text, "xX ") || (whole && !digits && value >= 0))
        return wrong_value(spec, arg, text, whole ? "is not a whole number" : "is not a number");
    bool any = arg->low == 0 && arg->high == 0 && !whole;
    if (!any && (value < arg->low || value > (arg->high > 0 ? arg->high : 9007199254740992.0)))
        return wrong_value(spec, arg, text, "is out of range");
    if (whole)
        *(size_t *)arg->place = (size_t)value;
    else
        *(double *)arg->place = value;
    return MBL_OK;
}

static mbl_status_t set_choice(const mbl_args_t *spec, const mbl_arg_t *arg, const char *text) {
    char known[200] = "";
    for (size_t i = 0; arg->words[i]; i++) {
        if (strcmp(arg->words[i], text) == 0) {
            *(const char **)arg->place = text;
            return MBL_OK;
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", arg->words[i]);
    }
    return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s: \"%.60s\" is not a choice; expected one of %s", spec->command,
                    arg->name, text, known);
}

/* Appends to a list that has room for all of argv. */
static mbl_status_t append(mbl_arg_texts_t *list, const char *text, int argc) {
    if (!list->items)
        MBL_ALLOC(list->items, (size_t)argc + 1);
    list->items[list->count++] = text;
    return MBL_OK;
}

static mbl_status_t set_value(const mbl_args_t *spec, const mbl_arg_t *arg, const char *text, int argc) {
    switch (arg->kind) {
    case MBL_ARG_COUNT:
    case MBL_ARG_NUMBER:
        return set_number(spec, arg, text);
    case MBL_ARG_CHOICE:
        return set_choice(spec, arg, text);
    case MBL_ARG_TEXTS:
    case MBL_ARG_PHRASES:
        return append(arg->place, text, argc);
    default:
        *(const char **)arg->place = text;
        return MBL_OK;
    }
}

/* The option at argv[*at], with its value; *at moves to the last word used. */
static mbl_status_t take_option(const mbl_args_t *spec, int argc, char **argv, int *at, uint64_t *seen) {
    const char *word = argv[*at] + 2, *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : strlen(word), i = 0;
    while (i < spec->n_args &&
           (strlen(spec->args[i].name) != length || strncmp(spec->args[i].name, word, length) != 0))
        i++;
    if (i == spec->n_args)
        return unknown_option(spec, word);
    const mbl_arg_t *arg = &spec->args[i];
    if (!is_list(arg) && *seen & (1ull << i))
        return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s: given twice; keep one", spec->command, arg->name);
    *seen |= 1ull << i;
    if (arg->kind == MBL_ARG_FLAG) {
        if (equals)
            return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s: takes no value; leave out \"%.60s\"", spec->command,
                            arg->name, equals);
        *(bool *)arg->place = true;
        return MBL_OK;
    }
    const char *text = equals ? equals + 1 : *at + 1 < argc ? argv[*at + 1] : NULL;
    if (!text || (!equals && strncmp(text, "--", 2) == 0)) {
        if (arg->kind == MBL_ARG_OUT) {
            *(const char **)arg->place = "-";
            return MBL_OK;
        }
        return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s: has no value; expected --%s %s", spec->command, arg->name,
                        arg->name, arg->value);
    }
    *at += !equals;
    if (!*text && arg->kind != MBL_ARG_PHRASES) /* most often a variable of a script that is not set */
        return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s: is given an empty string; expected --%s %s", spec->command,
                        arg->name, arg->name, arg->value);
    return set_value(spec, arg, text, argc);
}

static mbl_status_t check_complete(const mbl_args_t *spec, const mbl_arg_texts_t *rest, uint64_t seen) {
    for (size_t i = 0; i < spec->n_args; i++)
        if (spec->args[i].required && !(seen & (1ull << i)))
            return MBL_FAIL(MBL_ERR_USAGE, "%s: --%s %s is missing; see marble %s --help", spec->command,
                            spec->args[i].name, spec->args[i].value, spec->command);
    if (rest->count < spec->min_operands)
        return MBL_FAIL(MBL_ERR_USAGE, "%s: %s is missing; expected marble %s %s", spec->command,
                        spec->operands, spec->command, spec->operands);
    if (rest->count > spec->max_operands)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "%s: \"%.60s\" is one argument too many; expected marble %s%s%s [options]",
                        spec->command, rest->items[spec->max_operands], spec->command,
                        spec->operands[0] ? " " : "", spec->operands);
    return MBL_OK;
}

static mbl_status_t parse_all(const mbl_args_t *spec, int argc, char **argv, mbl_arg_texts_t *rest) {
    uint64_t seen = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && word[0] == '-' && word[1] == '-')
            MBL_TRY(take_option(spec, argc, argv, &i, &seen));
        else if (options && word[0] == '-' && word[1])
            return MBL_FAIL(MBL_ERR_USAGE, "%s: \"%.60s\": options are written in full, such as --help",
                            spec->command, word);
        else if (!*word)
            return MBL_FAIL(MBL_ERR_USAGE, "%s: \"\": an empty string is no %s", spec->command,
                            spec->operands[0] ? spec->operands : "argument");
        else
            MBL_TRY(append(rest, word, argc));
    }
    return check_complete(spec, rest, seen);
}

/* What the program asks of its own commands (pages.c, main.c). */
static bool print_form(const mbl_args_t *spec, const char *word) {
    static const struct {
        const char *word;
        void (*print)(const mbl_args_t *spec);
    } forms[] = {{"--help-man", mbl_args_print_man},
                 {"--help-bash", mbl_args_print_bash},
                 {"--help-zsh", mbl_args_print_zsh}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(forms[i].word, word) == 0) {
            forms[i].print(spec);
            return true;
        }
    return false;
}

mbl_status_t mbl_args_parse(const mbl_args_t *spec, int argc, char **argv, mbl_arg_texts_t *rest,
                            bool *helped) {
    mbl_arg_texts_t operands = {0};
    MBL_REQUIRE(spec->n_args <= 64, "%zu options; at most 64 fit", spec->n_args);
    *helped = false;
    if (argc == 2 && print_form(spec, argv[1])) {
        *helped = true;
        *rest = operands;
        return mbl_args_printed(spec->command);
    }
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            mbl_args_print_help(spec);
            *helped = true;
            *rest = operands;
            return mbl_args_printed(spec->command);
        }
    mbl_status_t status = parse_all(spec, argc, argv, &operands);
    if (status == MBL_OK) {
        *rest = operands;
        return MBL_OK;
    }
    mbl_free(operands.items);
    for (size_t i = 0; i < spec->n_args; i++)
        if (is_list(&spec->args[i])) {
            mbl_arg_texts_t *list = spec->args[i].place;
            mbl_free(list->items);
            *list = (mbl_arg_texts_t){0};
        }
    return status;
}
