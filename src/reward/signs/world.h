/* What the scorers of the signs world share: what a sentence asks for, and how near a pixel is to a colour.
 */
#ifndef MBL_REWARD_WORLD_H
#define MBL_REWARD_WORLD_H

#include "data/signs/signs.h"
#include "reward/reward.h"

/* *inside: is the sentence one of the signs world? Then *scene is what it asks for. Errors: ERR_REWARD for an
 * image of another size than the world's beside such a sentence. */
mbl_status_t mbl_world_asked(const mbl_image_t *image, const mbl_prompt_t *prompt, bool *inside,
                             mbl_signs_scene_t *scene);

/* Whether a sentence of that kind is asked for; of any kind. */
bool mbl_world_asks(const mbl_prompt_t *prompt, int kind);
bool mbl_world_asks_any(const void *self, const mbl_prompt_t *prompt);

/* Distance of two colours in RGB, 0 .. 441.7. */
float mbl_world_distance(const uint8_t *a, const uint8_t *b);

/* 1 up to the distance `full`, falling evenly to 0 at the distance `none`. */
float mbl_world_near(float distance, float full, float none);

/* The nearest of all colours of the world and its distance: a palette index, or one of these. */
enum { MBL_WORLD_GROUND = -1, MBL_WORLD_INK = -2 };
int mbl_world_nearest(const uint8_t *pixel, float *distance);

/* A valid score, and one that does not apply. */
mbl_score_t mbl_score_valid(double value);
mbl_score_t mbl_score_na(void);

#endif
