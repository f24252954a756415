/* src/data/signs*: sentences there and back, splits, and drawings with the content known by construction. */
#include "support.h"
#include "data/signs/signs.h"
#include "data/signs/layout.h"

#include <stdlib.h>
#include <string.h>

enum { PIXELS = MBL_SIGNS_SIZE * MBL_SIGNS_SIZE, SCENES = 8 * 15 * 15 + 8 * 3 * 4 + 8 * 7 };

static int count_color(const uint8_t *rgb, const uint8_t color[3]) {
    int count = 0;
    for (int i = 0; i < PIXELS; i++)
        count += memcmp(rgb + 3 * i, color, 3) == 0;
    return count;
}

static void every_sentence_comes_back(void **state) {
    (void)state;
    mbl_signs_scene_t scene, back;
    char sentence[64], again[64];
    size_t n = 0, texts = 0;
    for (; mbl_signs_scene_at(n, &scene); n++) {
        mbl_signs_sentence(&scene, sentence);
        assert_true(mbl_signs_parse(sentence, &back));
        mbl_signs_sentence(&back, again);
        assert_string_equal(sentence, again);
        assert_int_equal(back.kind, scene.kind);
        assert_int_equal(back.color, scene.color);
        assert_int_equal(back.color2, scene.color2);
        assert_int_equal(back.shape, scene.shape);
        assert_int_equal(back.count, scene.count);
        assert_string_equal(back.text, scene.text);
        texts += scene.kind == MBL_SIGNS_TEXT;
    }
    assert_int_equal(n, SCENES);
    assert_int_equal(texts, 8 * 15 * 15);
}

static void sentences_read_as_promised(void **state) {
    (void)state;
    mbl_signs_scene_t scene;
    assert_true(mbl_signs_parse("a red sign that says \"K7\"", &scene));
    assert_int_equal(scene.kind, MBL_SIGNS_TEXT);
    assert_string_equal(scene.text, "K7");
    assert_string_equal(mbl_signs_color_name(scene.color), "red");
    assert_true(mbl_signs_parse("three blue circles", &scene));
    assert_int_equal(scene.kind, MBL_SIGNS_COUNT);
    assert_int_equal(scene.count, 3);
    assert_int_equal(scene.shape, 0);
    assert_string_equal(mbl_signs_color_name(scene.color), "blue");
    assert_true(mbl_signs_parse("one blue circle", &scene));
    assert_true(mbl_signs_parse("green above purple", &scene));
    assert_int_equal(scene.kind, MBL_SIGNS_HORIZON);
    assert_string_equal(mbl_signs_color_name(scene.color), "green");
    assert_string_equal(mbl_signs_color_name(scene.color2), "purple");
}

static void other_sentences_are_refused(void **state) {
    (void)state;
    static const char *const others[] = {
        "",
        " ",
        "a red sign that says \"K\"",
        "a red sign that says \"K77\"",
        "a red sign that says \"K7",
        "a red sign that says \"K7\" ",
        "a red sign that says \"KQ\"",
        "a red sign that says \"k7\"",
        "a mauve sign that says \"K7\"",
        "A red sign that says \"K7\"",
        "a red sign that says K7",
        "three blue circle",
        "one blue circles",
        "five blue circles",
        "three  blue circles",
        "three blue circles and a dog",
        "three mauve circles",
        "green above green",
        "green above mauve",
        "green below purple",
        "supercalifragilisticexpialidocious above purple",
        "a photo of two wine glasses",
    };
    mbl_signs_scene_t scene = {.count = 77};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (mbl_signs_parse(others[i], &scene))
            fail_msg("accepted: '%s'", others[i]);
    assert_int_equal(scene.count, 77);
}

static void scenes_are_half_text(void **state) {
    (void)state;
    enum { N = 4000 };
    int kinds[3] = {0}, colors[8] = {0}, held_out = 0;
    for (uint64_t i = 0; i < N; i++) {
        mbl_rng_t rng = mbl_rng(3, MBL_RNG_WORLD, 0, i);
        mbl_signs_scene_t scene;
        mbl_signs_scene(&rng, &scene);
        kinds[scene.kind]++;
        colors[scene.color]++;
        held_out += mbl_signs_held_out(&scene);
    }
    assert_near(kinds[MBL_SIGNS_TEXT], N / 2, 130); /* four standard deviations */
    assert_near(kinds[MBL_SIGNS_COUNT], N / 4, 110);
    assert_near(kinds[MBL_SIGNS_HORIZON], N / 4, 110);
    for (int c = 0; c < 8; c++)
        assert_near(colors[c], N / 8, 84);
    assert_near(held_out, N * (0.5 / 5 + 0.25 / 3 + 0.25 * 18 / 56), 120);
}

/* A drawing holds exactly what its scene asks for: areas of every colour. */
static void drawings_hold_what_is_asked(void **state) {
    (void)state;
    static const int area[3] = {52, 64, 40};
    uint8_t rgb[3 * PIXELS], again[3 * PIXELS];
    mbl_signs_scene_t scene;
    for (size_t i = 0; mbl_signs_scene_at(i, &scene); i++) {
        mbl_rng_t rng = mbl_rng(5, MBL_RNG_WORLD, 1, i), same = rng;
        mbl_signs_draw(&scene, &rng, rgb);
        mbl_signs_draw(&scene, &same, again);
        assert_memory_equal(rgb, again, sizeof rgb);
        int first = count_color(rgb, mbl_signs_color_rgb(scene.color));
        int ground = count_color(rgb, mbl_signs_ground_rgb()), ink = count_color(rgb, mbl_signs_ink_rgb());
        switch (scene.kind) {
        case MBL_SIGNS_TEXT:
            assert_int_equal(first + ink, MBL_PLATE_WIDTH * MBL_PLATE_HEIGHT);
            assert_int_equal(ground, PIXELS - first - ink);
            assert_in_range(ink, 2 * 36, 2 * 58);
            break;
        case MBL_SIGNS_COUNT:
            assert_int_equal(first, scene.count * area[scene.shape]);
            assert_int_equal(ground, PIXELS - first);
            break;
        case MBL_SIGNS_HORIZON:
            assert_int_equal(ground, 0);
            assert_int_equal(first + count_color(rgb, mbl_signs_color_rgb(scene.color2)), PIXELS);
            assert_in_range(first, 32 * MBL_HORIZON_FIRST, 32 * MBL_HORIZON_LAST);
            assert_memory_equal(rgb, mbl_signs_color_rgb(scene.color), 3);
            break;
        }
    }
}

static int distance2(const uint8_t *a, const uint8_t *b) {
    int sum = 0;
    for (int c = 0; c < 3; c++)
        sum += (a[c] - b[c]) * (a[c] - b[c]);
    return sum;
}

static void colors_are_far_apart(void **state) {
    (void)state;
    const uint8_t *colors[10] = {mbl_signs_ground_rgb(), mbl_signs_ink_rgb()};
    assert_int_equal(mbl_signs_colors(), 8);
    for (int c = 0; c < 8; c++)
        colors[2 + c] = mbl_signs_color_rgb(c);
    for (int a = 0; a < 10; a++)
        for (int b = 0; b < a; b++)
            assert_in_range(distance2(colors[a], colors[b]), 88 * 88, 3 * 255 * 255);
}

static void glyphs_differ(void **state) {
    (void)state;
    assert_int_equal(strlen(mbl_signs_glyphs()), MBL_SIGNS_GLYPHS);
    for (int a = 0; a < MBL_SIGNS_GLYPHS; a++)
        for (int b = 0; b < a; b++) {
            int differ = 0;
            for (int y = 0; y < MBL_GLYPH_HEIGHT; y++)
                for (int x = 0; x < MBL_GLYPH_WIDTH; x++)
                    differ += mbl_signs_glyph_pixel(a, x, y) != mbl_signs_glyph_pixel(b, x, y);
            assert_in_range(differ, 18, 96);
        }
}

/* Every sentence can be spelt with the words, glyph by glyph within the quotes. */
static void words_cover_the_sentences(void **state) {
    (void)state;
    mbl_signs_scene_t scene;
    for (size_t i = 0; mbl_signs_scene_at(i, &scene); i++) {
        char sentence[64], *rest, *quote;
        mbl_signs_sentence(&scene, sentence);
        if ((quote = strchr(sentence, '"')))
            *quote = 0;
        for (char *word = strtok_r(sentence, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
            size_t w = 0;
            while (mbl_signs_word(w) && strcmp(mbl_signs_word(w), word) != 0)
                w++;
            if (!mbl_signs_word(w))
                fail_msg("no word '%s'", word);
        }
    }
    size_t n = 0;
    while (mbl_signs_word(n))
        n++;
    assert_int_equal(n, 6 + 8 + 4 + 3 + 3 + 15);
    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < a; b++)
            assert_string_not_equal(mbl_signs_word(a), mbl_signs_word(b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sentence_comes_back),
        cmocka_unit_test(sentences_read_as_promised),
        cmocka_unit_test(other_sentences_are_refused),
        cmocka_unit_test(scenes_are_half_text),
        cmocka_unit_test(drawings_hold_what_is_asked),
        cmocka_unit_test(colors_are_far_apart),
        cmocka_unit_test(glyphs_differ),
        cmocka_unit_test(words_cover_the_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
