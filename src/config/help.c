/* The help of every key: marble train --help-config [SECTION]. */
#include "config/table.h"

#include "base/suggest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *kind_name(mbl_field_kind_t kind) {
    static const char *const names[] = {"whole",  "bytes",   "number",         "seconds", "choice",
                                        "folder", "file",    "file or folder", "",        "text",
                                        "names",  "numbers", "list",           "list",    "list"};
    return names[kind];
}

/* Whether a key is `section` or lies below it. */
static bool belongs(const char *key, const char *section) {
    size_t n = strlen(section);
    return n == 0 || (strncmp(key, section, n) == 0 && (key[n] == 0 || key[n] == '.'));
}

static void print_heading(const mbl_field_t *field, const char *previous, FILE *out) {
    const char *dot = strrchr(field->key, '.');
    size_t end = dot ? (size_t)(dot - field->key) : 0;
    char section[128];
    if (!*previous || mbl_config_shared_section(field->key, previous) != (end ? end + 1 : 0)) {
        snprintf(section, sizeof section, "%.*s", (int)end, field->key);
        const char *help = mbl_config_section_help(section);
        fprintf(out, "\n%s%s%s%s", section, *help ? ": " : "", help, end ? "\n" : "");
    } else if (!end && strchr(previous, '.'))
        fputc('\n', out);
}

static void print_key(const mbl_field_t *field, FILE *out) {
    char range[200];
    mbl_config_range(field, range, sizeof range);
    fprintf(out, "  %-38s %s%s%s%s%s\n", field->key,
            field->kind == MBL_FIELD_CHOICE ? "" : kind_name(field->kind),
            range[0] && field->kind != MBL_FIELD_CHOICE && field->kind != MBL_FIELD_PLACE ? ", " : "", range,
            field->unit ? ", " : "", field->unit ? field->unit : "");
    fprintf(out, "      %s%s%s%s\n", field->help, field->fallback[0] ? " [default: " : "", field->fallback,
            field->fallback[0] ? "]" : "");
    for (size_t j = 0; field->word_help && field->words[j]; j++)
        fprintf(out, "      %-16s %s\n", field->words[j], field->word_help[j]);
}

/* What a reward takes, and the scorers there are. */
static void print_rewards(FILE *out) {
    const char *help, *key;
    const mbl_scorer_t *scorer;
    fputs("\na reward, as in rewards: [{name: ocr}, {name: small, type: jpeg, weight: 2}]:\n", out);
    for (size_t i = 0; (key = mbl_config_reward_key(i, &help)); i++)
        fprintf(out, "  %-16s %s\n", key, help);
    fputs("\nscorers (the type of a reward):\n", out);
    for (size_t i = 0; (scorer = mbl_scorer_at(i)); i++) {
        fprintf(out, "  %-16s %s", scorer->name, scorer->help);
        if (isfinite(scorer->low) && isfinite(scorer->high))
            fprintf(out, "; scores in [%g, %g]", scorer->low, scorer->high);
        fputs(scorer->applies ? "; not for every prompt\n" : "\n", out);
        for (const mbl_scorer_key_t *own = scorer->keys; own && own->name; own++)
            fprintf(out, "      %-16s %s%s%s%s\n", own->name, own->help,
                    own->fallback[0] ? " [default: " : "", own->fallback, own->fallback[0] ? "]" : "");
    }
}

static void print_sources(FILE *out) {
    const char *help, *key;
    fputs("\na source, as in prompts: {source: file, sources: [{file: ocr.txt, weight: 2}, {file: "
          "geneval.jsonl}]}:\n",
          out);
    for (size_t i = 0; (key = mbl_config_source_key(i, &help)); i++)
        fprintf(out, "  %-16s %s\n", key, help);
}

static mbl_status_t unknown_section(const char *section) {
    size_t n, distance = 0, used = 0;
    const mbl_field_t *fields = mbl_config_fields(&n);
    char hint[MBL_SUGGESTED];
    const char *best = NULL;
    char known[500] = "", last[64] = "", name[64], guess[64];
    for (size_t i = 0; i < n; i++) {
        mbl_suggest(section, fields[i].key, &best, &distance);
        snprintf(name, sizeof name, "%.*s", (int)strcspn(fields[i].key, "."), fields[i].key);
        mbl_suggest(section, name, &best, &distance);
        if (best == name) {
            snprintf(guess, sizeof guess, "%s", name);
            best = guess;
        }
        if (strcmp(name, last) != 0 && used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", name);
        snprintf(last, sizeof last, "%s", name);
    }
    return MBL_FAIL(MBL_ERR_USAGE, "\"%.60s\": no such section or key of run.yaml%s; expected one of %s",
                    section, mbl_suggested("", best, hint), known);
}

mbl_status_t mbl_config_help(const char *section, FILE *out) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    const char *previous = "";
    bool all = !section || !*section, sources = false;
    if (all)
        fputs("Keys of run.yaml. Every one has a default; --set KEY=VALUE overrides the file, for instance\n"
              "--set train.lr=1e-4 --set 'model.lora.targets=[attn.to_q, attn.to_k]' --set "
              "rewards.0.weight=2.\n"
              "Paths are looked up from the current folder, then from the folder of the file.\n"
              "--help-config SECTION shows one section, such as train, rewards or balance.\n",
              out);
    for (size_t i = 0; i < n; i++) {
        if (!belongs(fields[i].key, all ? "" : section))
            continue;
        print_heading(&fields[i], previous, out);
        print_key(&fields[i], out);
        previous = fields[i].key;
        if (!all && fields[i].kind == MBL_FIELD_REWARDS)
            print_rewards(out);
        sources |= fields[i].kind == MBL_FIELD_SOURCES;
    }
    if (!all && sources)
        print_sources(out);
    return *previous ? MBL_OK : unknown_section(section);
}
