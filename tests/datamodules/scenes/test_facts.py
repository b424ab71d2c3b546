"""Truth of captions, by hand-counted examples."""

import pytest

from datamodules.scenes.facts import caption_fact_f1, check_caption, parse_caption
from datamodules.scenes.generator import Scene, SceneObject

# two small red circles in the left column; a large blue square at the right; a small green cross in between, low
SCENE = Scene(
    (
        SceneObject(shape="circle", colour="red", size="small", x=43, y=43, radius=20),
        SceneObject(shape="circle", colour="red", size="small", x=43, y=128, radius=20),
        SceneObject(shape="square", colour="blue", size="large", x=213, y=128, radius=36),
        SceneObject(shape="cross", colour="green", size="small", x=128, y=213, radius=20),
    ),
    0,
)


@pytest.mark.parametrize(
    ("caption", "stated", "true", "found"),
    [
        # object, colour, count of three mentions
        ("There are two red circles and a blue square and a green cross.", 9, 9, 4),
        # + one relation, + one size
        ("Two small red circles left of a blue square", 8, 8, 3),
        ("two red circles right of a blue square", 7, 6, 3),
        # the number is wrong and only so many objects are stated
        ("a red circle", 3, 2, 1),
        ("three red circles", 3, 2, 2),
        # no number: no count stated, the plural covers all
        ("red circles", 2, 2, 2),
        ("red circle", 2, 2, 1),
        # the shape is there, the colour is not: count and colour are wrong
        ("a blue circle", 3, 1, 0),
        # without a colour nothing is named for certain
        ("two circles", 2, 2, 0),
        # wrong size: size and count fail, nothing is found
        ("a large green cross", 4, 2, 0),
        ("a triangle", 2, 0, 0),
        # saying it twice neither helps nor hurts
        ("a green cross and a green cross", 3, 3, 1),
        # both relations of "and"; the cross is below the circles, not below the square by all accounts
        ("a green cross below two red circles and a blue square", 11, 11, 4),
        ("a green cross between two red circles and a blue square", 10, 10, 4),
        ("a blue square between two red circles and a green cross", 10, 9, 4),
        ("a green cross with a blue square above it and two red circles on its left", 11, 11, 4),
        ("a green cross with a blue square below it and two red circles on its right", 11, 9, 4),
        ("a blue square is to the right of two red circles", 7, 7, 3),
        ("", 0, 0, 0),
        ("a man riding a wave on top of a surfboard", 0, 0, 0),
        ("left of right of above red red two", 0, 0, 0),
    ],
)
def test_counts_by_hand(caption, stated, true, found):
    counts = check_caption(caption, SCENE)
    assert (counts.stated, counts.true, counts.objects, counts.found) == (stated, true, 4, found)


def test_truth_is_the_harmonic_mean():
    # precision 6/7, recall 3/4
    assert caption_fact_f1("two red circles right of a blue square", SCENE) == pytest.approx(
        2 * 6 / 7 * 3 / 4 / (6 / 7 + 3 / 4)
    )
    assert caption_fact_f1("", SCENE) == 0.0
    assert caption_fact_f1("a yellow triangle", SCENE) == 0.0


def test_case_and_punctuation_do_not_matter():
    plain = check_caption("two red circles left of a blue square", SCENE)
    assert check_caption("TWO red circles, left of a Blue square!", SCENE) == plain


def test_contradictions_are_stated_facts_that_cannot_all_hold():
    assert check_caption("a red green cross", SCENE).true < check_caption("a red green cross", SCENE).stated
    assert parse_caption("a red green cross").mentions[0].colours == {"red", "green"}


def test_words_between_end_a_description():
    assert parse_caption("a red thing and circle").mentions[0].colours == set()


def test_synonyms():
    assert parse_caption("a big circle").mentions[0].sizes == {"large"}
    assert parse_caption("a little circle under a square").relations == ((0, "below", 1),)
    assert parse_caption("a circle to the left of a square").relations == ((0, "left", 1),)
    assert parse_caption("a circle with a square on the left").relations == ((1, "left", 0),)
