/* The signs world: 32 x 32 RGB images on a light ground, and the sentences that describe them.
 *   text     a red sign that says "K7"      a coloured plate with two glyphs at fixed places, 15 glyphs
 *   count    three blue circles             1-4 circles, squares or triangles of one colour, not overlapping
 *   horizon  green above purple             two colours, a horizontal edge
 * A sentence parses back into what it asks for, so a scorer needs the sentence only. */
#ifndef MBL_DATA_SIGNS_H
#define MBL_DATA_SIGNS_H

#include "data/image.h"
#include "base/rng.h"

#include <stdbool.h>

enum { MBL_SIGNS_SIZE = 32, MBL_SIGNS_GLYPHS = 15, MBL_SIGNS_TEXT_MAX = 2 };

typedef enum { MBL_SIGNS_TEXT, MBL_SIGNS_COUNT, MBL_SIGNS_HORIZON } mbl_signs_kind_t;

typedef struct {
    mbl_signs_kind_t kind;
    int color, color2;                 /* index into the palette; color2 of a horizon is the lower half */
    int shape, count;                  /* MBL_SIGNS_COUNT: 0 circle, 1 square, 2 triangle; 1..4 */
    char text[MBL_SIGNS_TEXT_MAX + 1]; /* MBL_SIGNS_TEXT */
} mbl_signs_scene_t;

/* Palette: number of colours, name and RGB of each; the light ground and the ink of glyphs apart. */
int mbl_signs_colors(void);
const char *mbl_signs_color_name(int color);
const uint8_t *mbl_signs_color_rgb(int color);
const uint8_t *mbl_signs_ground_rgb(void);
const char *mbl_signs_glyphs(void); /* the 15 characters */

/* A random scene; half of them text, the rest split evenly. */
void mbl_signs_scene(mbl_rng_t *rng, mbl_signs_scene_t *scene);
/* The i-th of all scenes in a fixed order (texts, counts, horizons); false past the end. */
bool mbl_signs_scene_at(size_t i, mbl_signs_scene_t *scene);
/* Is its sentence one of the test split? A fifth of the glyph pairs and a third of the counts and horizons;
 * whoever trains on scenes leaves these out. */
bool mbl_signs_held_out(const mbl_signs_scene_t *scene);

/* The sentence of a scene (out at least 64 bytes), and back: false when the sentence is none of this world's.
 */
void mbl_signs_sentence(const mbl_signs_scene_t *scene, char *out);
bool mbl_signs_parse(const char *sentence, mbl_signs_scene_t *scene);

/* Draws a scene into rgb [32, 32, 3]; positions and sizes from rng. */
void mbl_signs_draw(const mbl_signs_scene_t *scene, mbl_rng_t *rng, uint8_t *rgb);

/* Every word and glyph of the world, for a tokenizer's vocabulary: the i-th, NULL past the end. */
const char *mbl_signs_word(size_t i);

#endif
