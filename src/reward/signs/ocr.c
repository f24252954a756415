/* ocr: reads the two glyphs of a sign. N/A unless the sentence is a sign that quotes a text.
 *
 *   score = 1 - edit distance(read, asked) / length(asked)
 *
 * A glyph cell is read as the template with which its brightness correlates best (dark ink, so negatively),
 * whatever the contrast. It reads as '?', which equals no glyph, when that correlation is below 0.5 (noise
 * reaches 0.3) or ink and plate differ by less than 24 of 255 in brightness. Brightness is the largest of R,
 * G and B: every palette colour is bright in one of them, the ink in none. */
#include "reward/scorers.h"
#include "reward/signs/world.h"
#include "data/signs/layout.h"

#include <math.h>
#include <string.h>

enum { WIDTH = MBL_GLYPH_WIDTH, HEIGHT = MBL_GLYPH_HEIGHT, CELL = WIDTH * HEIGHT };
static const double least_correlation = 0.5, least_contrast = 24;

static void take_cell(const mbl_image_t *image, int index, double cell[CELL]) {
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            const uint8_t *p = image->rgb + 3 * ((MBL_GLYPH_Y + y) * MBL_SIGNS_SIZE + MBL_GLYPH_X +
                                                 index * MBL_GLYPH_STEP + x);
            uint8_t rg = p[0] > p[1] ? p[0] : p[1];
            cell[y * WIDTH + x] = rg > p[2] ? rg : p[2];
        }
}

/* Correlation of the cell with a glyph's ink, and how much brighter the plate is than the ink. */
static double correlate(const double cell[CELL], int glyph, double *contrast) {
    double sum = 0, square = 0, inked = 0;
    int ink = 0;
    for (int i = 0; i < CELL; i++) {
        bool on = mbl_signs_glyph_pixel(glyph, i % WIDTH, i / WIDTH);
        sum += cell[i];
        square += cell[i] * cell[i];
        inked += on ? cell[i] : 0;
        ink += on;
    }
    double variance = square / CELL - sum / CELL * (sum / CELL), share = (double)ink / CELL;
    *contrast = (sum - inked) / (CELL - ink) - inked / ink;
    return variance > 1e-6 ? *contrast * sqrt(share * (1 - share) / variance) : 0;
}

static char read_cell(const double cell[CELL]) {
    double best = least_correlation;
    char read = '?';
    for (int glyph = 0; glyph < MBL_SIGNS_GLYPHS; glyph++) {
        double contrast, correlation = correlate(cell, glyph, &contrast);
        if (correlation > best && contrast >= least_contrast) {
            best = correlation;
            read = mbl_signs_glyphs()[glyph];
        }
    }
    return read;
}

/* Levenshtein's distance of two texts of MBL_SIGNS_TEXT_MAX characters at most. */
static int edit_distance(const char *a, const char *b) {
    enum { MOST = MBL_SIGNS_TEXT_MAX + 1 };
    int la = (int)strlen(a), lb = (int)strlen(b), d[MOST][MOST];
    for (int i = 0; i <= la; i++)
        for (int j = 0; j <= lb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            int leave = d[i - 1][j] < d[i][j - 1] ? d[i - 1][j] + 1 : d[i][j - 1] + 1;
            d[i][j] = change < leave ? change : leave;
        }
    return d[la][lb];
}

static mbl_status_t score_image(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                mbl_score_t *out) {
    (void)self;
    mbl_signs_scene_t asked;
    bool inside;
    MBL_TRY(mbl_world_asked(image, prompt, &inside, &asked));
    if (!inside || asked.kind != MBL_SIGNS_TEXT) {
        *out = mbl_score_na();
        return MBL_OK;
    }
    char read[MBL_SIGNS_TEXT_MAX + 1] = "";
    for (int i = 0; i < MBL_SIGNS_TEXT_MAX; i++) {
        double cell[CELL];
        take_cell(image, i, cell);
        read[i] = read_cell(cell);
    }
    *out = mbl_score_valid(1 - (double)edit_distance(read, asked.text) / (double)strlen(asked.text));
    return MBL_OK;
}

static bool ocr_applies(const void *self, const mbl_prompt_t *prompt) {
    (void)self;
    return mbl_world_asks(prompt, MBL_SIGNS_TEXT);
}

MBL_SCORE_EACH(score_ocr, score_image)

const mbl_scorer_t mbl_scorer_ocr = {.name = "ocr",
                                     .help =
                                         "the quoted text is what the sign says (1 - edit distance / length)",
                                     .low = 0,
                                     .high = 1,
                                     .batch = 1,
                                     .score = score_ocr,
                                     .applies = ocr_applies};
