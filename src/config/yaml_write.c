/* Scalars going out, such that readers of YAML 1.1 and of 1.2 take them for the same. */
#include "config/yaml.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void mbl_yaml_write_quoted(FILE *out, const char *text) {
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f)
            fprintf(out, "\\x%02x", *c);
        else
            fprintf(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    }
    fputc('"', out);
}

char *mbl_yaml_quoted(const char *text) {
    char *memory = NULL, *copy = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&memory, &size);
    if (!out)
        return NULL;
    mbl_yaml_write_quoted(out, text);
    if (fclose(out) == 0)
        copy = mbl_strdup(memory);
    free(memory);
    return copy;
}

void mbl_yaml_write_number(FILE *out, double value) {
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
    size_t mantissa = strcspn(text, "e"); /* printf always signs the exponent */
    bool point = memchr(text, '.', mantissa) || !text[mantissa];
    fprintf(out, "%.*s%s%s", (int)mantissa, text, point ? "" : ".0", text + mantissa);
}

int mbl_yaml_boolean(const char *word) {
    static const char *const words[] = {"true", "True", "TRUE", "yes",   "Yes",   "YES",   "on", "On",
                                        "ON",   "y",    "Y",    "false", "False", "FALSE", "no", "No",
                                        "NO",   "off",  "Off",  "OFF",   "n",     "N"};
    enum { N_TRUE = 11, N_WORDS = sizeof words / sizeof *words };
    for (int i = 0; i < N_WORDS; i++)
        if (strcmp(word, words[i]) == 0)
            return i < N_TRUE;
    return -1;
}
