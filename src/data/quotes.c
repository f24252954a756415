/* Quoted text in prompts. */
#include "data/quotes.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Straight quotes with something between them. */
static bool is_straight(const char *prompt) {
    const char *open = strchr(prompt, '"'), *close = open ? strchr(open + 1, '"') : NULL;
    return close && close > open + 1;
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c & 0x80);
}

/* Something between two of the single quotes: one that no word precedes, one that no word follows. */
static bool has_single(const char *prompt, const char *open, const char *close) {
    size_t n = strlen(open), m = strlen(close);
    for (const char *at = prompt; (at = strstr(at, open)); at += n) {
        if (at > prompt && is_word(at[-1]))
            continue;
        for (const char *end = at + n; (end = strstr(end, close)); end += m)
            if (end > at + n && end[-1] != ' ' && !is_word(end[m]))
                return true;
    }
    return false;
}

/* Something between two marks that are nothing but quotes. */
static bool has_pair(const char *prompt, const char *open, const char *close) {
    const char *at = strstr(prompt, open), *end = at ? strstr(at + strlen(open), close) : NULL;
    return end && end > at + strlen(open);
}

mbl_quotes_t mbl_quotes_in(const char *prompt) {
    static const char *const pairs[][2] = {{"\xE2\x80\x9C", "\xE2\x80\x9D"}, /* curly */
                                           {"\xE2\x80\x9D", "\xE2\x80\x9D"}, /* the same one twice */
                                           {"\xE2\x80\x9E", "\xE2\x80\x9C"}, /* low and high */
                                           {"\xE2\x80\x9E", "\xE2\x80\x9D"},
                                           {"\xC2\xAB", "\xC2\xBB"}, /* guillemets */
                                           {"\xC2\xBB", "\xC2\xAB"},
                                           {"\xE3\x80\x8C", "\xE3\x80\x8D"}, /* corner brackets */
                                           {"\xEF\xBC\x82", "\xEF\xBC\x82"}, /* full width */
                                           {"`", "`"},
                                           {"''", "''"}};
    static const char *const singles[][2] = {{"'", "'"},
                                             {"\xE2\x80\x98", "\xE2\x80\x99"},
                                             {"\xE2\x80\x99", "\xE2\x80\x99"},
                                             {"\xE2\x80\x9A", "\xE2\x80\x98"}};
    if (is_straight(prompt))
        return MBL_QUOTES_STRAIGHT;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (has_pair(prompt, pairs[i][0], pairs[i][1]))
            return MBL_QUOTES_OTHER;
    for (size_t i = 0; i < sizeof singles / sizeof *singles; i++)
        if (has_single(prompt, singles[i][0], singles[i][1]))
            return MBL_QUOTES_OTHER;
    return MBL_QUOTES_NONE;
}
