/* The glyphs and the drawing of a scene. Everything is crisp, so that a true image holds palette colours
 * only. */
#include "data/signs/signs.h"
#include "data/signs/layout.h"

#include <string.h>

enum { SIZE = MBL_SIGNS_SIZE, SHAPE = MBL_SHAPE_SIZE };

/* The glyphs as they look, side by side in the order of mbl_signs_glyphs: eight, then seven. Strokes are two
 * pixels. */
static const char *const banks[2][MBL_GLYPH_HEIGHT] = {
    {".######. ##....## ##....## ##...... ##....## #######. ######## ##....##",
     "######## ##....## ##...##. ##...... ###..### ######## ######## ##....##",
     "##....## ##....## ##..##.. ##...... ######## ##....## ...##... ##....##",
     "##...... ##....## ##.##... ##...... ##.##.## ##....## ...##... ##....##",
     "##...... ##....## ####.... ##...... ##.##.## ##....## ...##... ##....##",
     "##...... ######## ###..... ##...... ##....## ######## ...##... ##....##",
     "##...... ######## ###..... ##...... ##....## #######. ...##... ##....##",
     "##...... ##....## ####.... ##...... ##....## ##...... ...##... ##....##",
     "##...... ##....## ##.##... ##...... ##....## ##...... ...##... ##....##",
     "##....## ##....## ##..##.. ##...... ##....## ##...... ...##... ##....##",
     "######## ##....## ##...##. ######## ##....## ##...... ...##... ########",
     ".######. ##....## ##....## ######## ##....## ##...... ...##... .######."},
    {"##....## ######## ...##... .######. ....###. ######## ########",
     "##....## ######## ..###... ######## ...####. ######## ########",
     ".##..##. ......## .####... ......## ..##.##. ##...... ......##",
     ".##..##. .....##. ##.##... ......## .##..##. ##...... .....##.",
     "..####.. ....##.. ...##... ......## ##...##. ######.. .....##.",
     "...##... ....##.. ...##... ..#####. ##...##. #######. ....##..",
     "...##... ...##... ...##... ..#####. ######## ......## ....##..",
     "..####.. ..##.... ...##... ......## ######## ......## ...##...",
     ".##..##. .##..... ...##... ......## .....##. ......## ...##...",
     ".##..##. ##...... ...##... ......## .....##. ##....## ..##....",
     "##....## ######## ######## ######## .....##. ######## ..##....",
     "##....## ######## ######## .######. .....##. .######. ..##...."},
};

static const char *const shape_art[MBL_SHAPES][SHAPE] = {
    {"..####..", ".######.", "########", "########", "########", "########", ".######.", "..####.."},
    {"########", "########", "########", "########", "########", "########", "########", "########"},
    {"...##...", "...##...", "..####..", "..####..", ".######.", ".######.", "########", "########"},
};

bool mbl_signs_glyph_pixel(int glyph, int x, int y) {
    return banks[glyph / 8][y][glyph % 8 * (MBL_GLYPH_WIDTH + 1) + x] == '#';
}

bool mbl_signs_shape_pixel(int shape, int x, int y) {
    return shape_art[shape][y][x] == '#';
}

int mbl_signs_shape_area(int shape) {
    int area = 0;
    for (int y = 0; y < SHAPE; y++)
        for (int x = 0; x < SHAPE; x++)
            area += mbl_signs_shape_pixel(shape, x, y);
    return area;
}

static void put(uint8_t *rgb, int x, int y, const uint8_t color[3]) {
    memcpy(rgb + 3 * (y * SIZE + x), color, 3);
}

static void fill(uint8_t *rgb, int x, int y, int width, int height, const uint8_t color[3]) {
    for (int j = y; j < y + height; j++)
        for (int i = x; i < x + width; i++)
            put(rgb, i, j, color);
}

static void draw_text(const mbl_signs_scene_t *scene, uint8_t *rgb) {
    const char *glyphs = mbl_signs_glyphs();
    fill(rgb, MBL_PLATE_X, MBL_PLATE_Y, MBL_PLATE_WIDTH, MBL_PLATE_HEIGHT, mbl_signs_color_rgb(scene->color));
    for (int k = 0; k < MBL_SIGNS_TEXT_MAX; k++) {
        const char *found = strchr(glyphs, scene->text[k]);
        for (int y = 0; found && y < MBL_GLYPH_HEIGHT; y++)
            for (int x = 0; x < MBL_GLYPH_WIDTH; x++)
                if (mbl_signs_glyph_pixel((int)(found - glyphs), x, y))
                    put(rgb, MBL_GLYPH_X + k * MBL_GLYPH_STEP + x, MBL_GLYPH_Y + y, mbl_signs_ink_rgb());
    }
}

/* Draws places on a lattice (which a model of few patches learns soon) until every shape keeps its distance.
 * A dead end starts over; four boxes of 8 in 32 leave so much room that this ends soon. */
static void place_shapes(int count, mbl_rng_t *rng, int x[], int y[]) {
    const int apart = SHAPE + MBL_SHAPE_GAP;
    const uint32_t places = (SIZE - SHAPE - 2 * MBL_SHAPE_MARGIN) / MBL_SHAPE_LATTICE + 1;
    for (int placed = 0, tries = 0; placed < count; tries++) {
        if (tries == 50)
            placed = tries = 0;
        x[placed] = MBL_SHAPE_MARGIN + MBL_SHAPE_LATTICE * (int)mbl_rng_below(rng, places);
        y[placed] = MBL_SHAPE_MARGIN + MBL_SHAPE_LATTICE * (int)mbl_rng_below(rng, places);
        bool free = true;
        for (int i = 0; i < placed; i++)
            free = free && (x[i] - x[placed] >= apart || x[placed] - x[i] >= apart ||
                            y[i] - y[placed] >= apart || y[placed] - y[i] >= apart);
        placed += free;
    }
}

static void draw_shapes(const mbl_signs_scene_t *scene, mbl_rng_t *rng, uint8_t *rgb) {
    int left[4], top[4];
    place_shapes(scene->count, rng, left, top);
    for (int i = 0; i < scene->count; i++)
        for (int y = 0; y < SHAPE; y++)
            for (int x = 0; x < SHAPE; x++)
                if (mbl_signs_shape_pixel(scene->shape, x, y))
                    put(rgb, left[i] + x, top[i] + y, mbl_signs_color_rgb(scene->color));
}

static void draw_horizon(const mbl_signs_scene_t *scene, mbl_rng_t *rng, uint8_t *rgb) {
    int edge = MBL_HORIZON_FIRST + (int)mbl_rng_below(rng, MBL_HORIZON_LAST - MBL_HORIZON_FIRST + 1);
    fill(rgb, 0, 0, SIZE, edge, mbl_signs_color_rgb(scene->color));
    fill(rgb, 0, edge, SIZE, SIZE - edge, mbl_signs_color_rgb(scene->color2));
}

void mbl_signs_draw(const mbl_signs_scene_t *scene, mbl_rng_t *rng, uint8_t *rgb) {
    fill(rgb, 0, 0, SIZE, SIZE, mbl_signs_ground_rgb());
    switch (scene->kind) {
    case MBL_SIGNS_TEXT:
        draw_text(scene, rgb);
        break;
    case MBL_SIGNS_COUNT:
        draw_shapes(scene, rng, rgb);
        break;
    case MBL_SIGNS_HORIZON:
        draw_horizon(scene, rng, rgb);
        break;
    }
}
