/* The sentences of the signs world: palette, words, scenes, and the way between a scene and its sentence. */
#include "data/signs/signs.h"
#include "data/signs/layout.h"

#include <stdio.h>
#include <string.h>

enum { COLORS = 8, SHAPES = MBL_SHAPES, COUNTS = 4, GLYPHS = MBL_SIGNS_GLYPHS };
enum {
    TEXTS = COLORS * GLYPHS * GLYPHS,
    GROUPS = COLORS * SHAPES * COUNTS,
    HORIZONS = COLORS * (COLORS - 1)
};

/* At least 88 apart in RGB from each other, from the ground and from the ink, and each bright in some
 * channel, so that dark ink stands out on all of them. */
static const struct {
    const char *name;
    uint8_t rgb[3];
} palette[COLORS] = {
    {"red", {220, 40, 40}},  {"yellow", {250, 205, 30}}, {"green", {40, 165, 70}},  {"cyan", {60, 205, 225}},
    {"blue", {45, 95, 225}}, {"purple", {150, 60, 190}}, {"pink", {250, 140, 190}}, {"brown", {150, 95, 45}},
};
static const uint8_t ground[3] = {240, 240, 235}, ink[3] = {25, 25, 35};

static const char glyphs[GLYPHS + 1] = "CHKLMPTUXZ13457";
static const char *const numbers[COUNTS] = {"one", "two", "three", "four"};
static const char *const shapes[SHAPES] = {"circle", "square", "triangle"};
static const char *const plurals[SHAPES] = {"circles", "squares", "triangles"};
static const char *const grammar[] = {"a", "sign", "that", "says", "\"", "above"};
enum { GRAMMAR = sizeof grammar / sizeof *grammar };

/* Single characters, so that "X" has an address too. */
static const char glyph_words[GLYPHS][2] = {"C", "H", "K", "L", "M", "P", "T", "U",
                                            "X", "Z", "1", "3", "4", "5", "7"};

int mbl_signs_colors(void) {
    return COLORS;
}

const char *mbl_signs_color_name(int color) {
    return palette[color].name;
}

const uint8_t *mbl_signs_color_rgb(int color) {
    return palette[color].rgb;
}

const uint8_t *mbl_signs_ground_rgb(void) {
    return ground;
}

const uint8_t *mbl_signs_ink_rgb(void) {
    return ink;
}

const char *mbl_signs_glyphs(void) {
    return glyphs;
}

/* The i-th text, group or horizon, in a fixed order. */
static void text_at(uint32_t i, mbl_signs_scene_t *scene) {
    *scene = (mbl_signs_scene_t){.kind = MBL_SIGNS_TEXT, .color = (int)(i / (GLYPHS * GLYPHS))};
    scene->text[0] = glyphs[i / GLYPHS % GLYPHS];
    scene->text[1] = glyphs[i % GLYPHS];
}

static void group_at(uint32_t i, mbl_signs_scene_t *scene) {
    *scene = (mbl_signs_scene_t){.kind = MBL_SIGNS_COUNT,
                                 .color = (int)(i / (SHAPES * COUNTS)),
                                 .shape = (int)(i / COUNTS % SHAPES),
                                 .count = (int)(i % COUNTS) + 1};
}

static void horizon_at(uint32_t i, mbl_signs_scene_t *scene) {
    int upper = (int)(i / (COLORS - 1)), other = (int)(i % (COLORS - 1));
    *scene = (mbl_signs_scene_t){
        .kind = MBL_SIGNS_HORIZON, .color = upper, .color2 = other < upper ? other : other + 1};
}

bool mbl_signs_scene_at(size_t i, mbl_signs_scene_t *scene) {
    if (i < TEXTS)
        text_at((uint32_t)i, scene);
    else if (i < TEXTS + GROUPS)
        group_at((uint32_t)i - TEXTS, scene);
    else if (i < TEXTS + GROUPS + HORIZONS)
        horizon_at((uint32_t)i - TEXTS - GROUPS, scene);
    else
        return false;
    return true;
}

void mbl_signs_scene(mbl_rng_t *rng, mbl_signs_scene_t *scene) {
    uint32_t quarter = mbl_rng_below(rng, 4);
    if (quarter < 2)
        text_at(mbl_rng_below(rng, TEXTS), scene);
    else if (quarter == 2)
        group_at(mbl_rng_below(rng, GROUPS), scene);
    else
        horizon_at(mbl_rng_below(rng, HORIZONS), scene);
}

/* Residues rather than a hash: every colour, glyph, shape and count then occurs about equally often on both
 * sides. */
bool mbl_signs_held_out(const mbl_signs_scene_t *scene) {
    switch (scene->kind) {
    case MBL_SIGNS_TEXT: { /* a fifth of the glyph pairs, in every colour */
        long first = strchr(glyphs, scene->text[0]) - glyphs,
             second = strchr(glyphs, scene->text[1]) - glyphs;
        return (first + 2 * second) % 5 == 0;
    }
    case MBL_SIGNS_COUNT:
        return (scene->color + scene->shape + scene->count) % 3 == 0;
    case MBL_SIGNS_HORIZON:
        return (scene->color + scene->color2) % 3 == 0;
    }
    return false;
}

void mbl_signs_sentence(const mbl_signs_scene_t *scene, char *out) {
    enum { SIZE = 64 };
    const char *color = palette[scene->color].name;
    switch (scene->kind) {
    case MBL_SIGNS_TEXT:
        snprintf(out, SIZE, "a %s sign that says \"%s\"", color, scene->text);
        break;
    case MBL_SIGNS_COUNT:
        snprintf(out, SIZE, "%s %s %s", numbers[scene->count - 1], color,
                 (scene->count == 1 ? shapes : plurals)[scene->shape]);
        break;
    case MBL_SIGNS_HORIZON:
        snprintf(out, SIZE, "%s above %s", color, palette[scene->color2].name);
        break;
    }
}

static int find(const char *word, const char *const *words, int n) {
    for (int i = 0; i < n; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    return -1;
}

static int find_color(const char *word) {
    for (int i = 0; i < COLORS; i++)
        if (strcmp(word, palette[i].name) == 0)
            return i;
    return -1;
}

static bool is_glyph(char c) {
    return c && strchr(glyphs, c);
}

static bool parse_words(const char *sentence, mbl_signs_scene_t *scene) {
    char first[16], second[16], third[16], text[3];
    memset(scene, 0, sizeof *scene);
    if (sscanf(sentence, "a %15s sign that says \"%2[^\"]", first, text) == 2) {
        scene->kind = MBL_SIGNS_TEXT;
        scene->color = find_color(first);
        memcpy(scene->text, text, sizeof text);
        return scene->color >= 0 && is_glyph(text[0]) && is_glyph(text[1]);
    }
    if (sscanf(sentence, "%15s %15s %15s", first, second, third) != 3)
        return false;
    if (strcmp(second, "above") == 0) {
        scene->kind = MBL_SIGNS_HORIZON;
        scene->color = find_color(first);
        scene->color2 = find_color(third);
        return scene->color >= 0 && scene->color2 >= 0 && scene->color != scene->color2;
    }
    scene->kind = MBL_SIGNS_COUNT;
    scene->count = find(first, numbers, COUNTS) + 1;
    scene->color = find_color(second);
    scene->shape = find(third, scene->count == 1 ? shapes : plurals, SHAPES);
    return scene->count > 0 && scene->color >= 0 && scene->shape >= 0;
}

bool mbl_signs_parse(const char *sentence, mbl_signs_scene_t *scene) {
    mbl_signs_scene_t found;
    char again[64];
    if (!parse_words(sentence, &found))
        return false;
    mbl_signs_sentence(&found, again); /* a third glyph, a missing quote, more words, other spaces */
    if (strcmp(sentence, again) != 0)
        return false;
    *scene = found;
    return true;
}

const char *mbl_signs_word(size_t i) {
    if (i < GRAMMAR)
        return grammar[i];
    i -= GRAMMAR;
    if (i < COLORS)
        return palette[i].name;
    i -= COLORS;
    if (i < COUNTS)
        return numbers[i];
    i -= COUNTS;
    if (i < SHAPES)
        return shapes[i];
    i -= SHAPES;
    if (i < SHAPES)
        return plurals[i];
    i -= SHAPES;
    return i < GLYPHS ? glyph_words[i] : NULL;
}
