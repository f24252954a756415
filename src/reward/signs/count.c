/* count: as many shapes as asked, in the right colour and of the right shape. N/A unless the sentence gives a
 * count.
 *
 *   score = (1 - |found - asked| / max(found, asked)) * mean credit of what was found;  0 when nothing was
 *
 * Found are the connected sets (8 neighbours) of at least 12 pixels whose nearest colour is the asked one,
 * within 70. The credit of one is 1 when it overlaps best with the asked shape, 1/2 when better with another,
 * 1/4 when with none by 0.6 (intersection over union, at the best place within a pixel of its centre). */
#include "reward/scorers.h"
#include "reward/signs/world.h"
#include "data/signs/layout.h"

#include <string.h>

enum { SIZE = MBL_SIGNS_SIZE, PIXELS = SIZE * SIZE, LEAST_AREA = 12 };
static const float farthest = 70;
static const double least_overlap = 0.6;

typedef struct {
    uint8_t label[PIXELS]; /* 0: not of the colour or dropped, 1: not visited, 2: being looked at, 3: done */
    int16_t member[PIXELS];
    int area, left, right, top, bottom; /* of the component being looked at */
} field_t;

static void mark_color(const mbl_image_t *image, int color, field_t *field) {
    for (int i = 0; i < PIXELS; i++) {
        float distance;
        field->label[i] = mbl_world_nearest(image->rgb + 3 * i, &distance) == color && distance <= farthest;
    }
}

/* Gathers the component of pixel `start`: its pixels (labelled 2), area and box. */
static void gather(field_t *field, int start) {
    field->area = 0;
    field->left = field->top = SIZE;
    field->right = field->bottom = -1;
    field->label[start] = 2;
    field->member[field->area++] = (int16_t)start;
    for (int next = 0; next < field->area; next++) {
        int x = field->member[next] % SIZE, y = field->member[next] / SIZE;
        field->left = x < field->left ? x : field->left;
        field->right = x > field->right ? x : field->right;
        field->top = y < field->top ? y : field->top;
        field->bottom = y > field->bottom ? y : field->bottom;
        for (int v = y > 0 ? y - 1 : 0; v <= y + 1 && v < SIZE; v++)
            for (int u = x > 0 ? x - 1 : 0; u <= x + 1 && u < SIZE; u++)
                if (field->label[v * SIZE + u] == 1) {
                    field->label[v * SIZE + u] = 2;
                    field->member[field->area++] = (int16_t)(v * SIZE + u);
                }
    }
}

static double overlap_at(const field_t *field, int shape, int left, int top) {
    int common = 0;
    for (int y = 0; y < MBL_SHAPE_SIZE; y++)
        for (int x = 0; x < MBL_SHAPE_SIZE; x++) {
            int u = left + x, v = top + y;
            if (u >= 0 && u < SIZE && v >= 0 && v < SIZE)
                common += mbl_signs_shape_pixel(shape, x, y) && field->label[v * SIZE + u] == 2;
        }
    return (double)common / (mbl_signs_shape_area(shape) + field->area - common);
}

static double overlap(const field_t *field, int shape) {
    int left = (field->left + field->right + 1 - MBL_SHAPE_SIZE) / 2;
    int top = (field->top + field->bottom + 1 - MBL_SHAPE_SIZE) / 2;
    double best = 0;
    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++) {
            double here = overlap_at(field, shape, left + dx, top + dy);
            best = here > best ? here : best;
        }
    return best;
}

static double credit(const field_t *field, int asked) {
    double own = overlap(field, asked), best = own;
    for (int shape = 0; shape < MBL_SHAPES; shape++) {
        double other = overlap(field, shape);
        best = other > best ? other : best;
    }
    return best < least_overlap ? 0.25 : own == best ? 1 : 0.5;
}

static mbl_status_t score_image(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                mbl_score_t *out) {
    (void)self;
    mbl_signs_scene_t asked;
    bool inside;
    MBL_TRY(mbl_world_asked(image, prompt, &inside, &asked));
    if (!inside || asked.kind != MBL_SIGNS_COUNT) {
        *out = mbl_score_na();
        return MBL_OK;
    }
    field_t field;
    int found = 0;
    double credits = 0;
    mark_color(image, asked.color, &field);
    for (int i = 0; i < PIXELS; i++) {
        if (field.label[i] != 1)
            continue;
        gather(&field, i);
        if (field.area >= LEAST_AREA) {
            found++;
            credits += credit(&field, asked.shape);
        }
        for (int k = 0; k < field.area; k++)
            field.label[field.member[k]] = 3;
    }
    int most = found > asked.count ? found : asked.count, off = most - (found + asked.count - most);
    *out = mbl_score_valid(found ? (1 - (double)off / most) * credits / found : 0);
    return MBL_OK;
}

static bool count_applies(const void *self, const mbl_prompt_t *prompt) {
    (void)self;
    return mbl_world_asks(prompt, MBL_SIGNS_COUNT);
}

MBL_SCORE_EACH(score_count, score_image)

const mbl_scorer_t mbl_scorer_count = {.name = "count",
                                       .help = "as many shapes as asked, of the asked colour and shape",
                                       .low = 0,
                                       .high = 1,
                                       .batch = 1,
                                       .score = score_count,
                                       .applies = count_applies};
