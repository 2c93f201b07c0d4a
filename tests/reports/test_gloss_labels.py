import pytest

from slrctl.reports.figures import (
    LONGEST_NAME,
    available_families,
    drawn_text,
    gloss_labels,
    shortened,
)


@pytest.mark.parametrize(
    ("gloss", "label"),
    [
        ("thank you", "thank you"),
        ("x" * LONGEST_NAME, "x" * LONGEST_NAME),
        ("two\nlines\tand  more", "two lines and more"),
        ("thank you very much indeed, you know who you are", "thank you very much i…ho you are"),
    ],
)
def test_a_gloss_is_put_on_one_line_of_bounded_length(gloss, label):
    assert shortened(gloss) == label
    assert len(label) <= LONGEST_NAME


def test_a_gloss_no_font_can_draw_is_numbered_from_one():
    # No font has the private-use character, and DejaVu Sans has no Hangul.
    labels = gloss_labels(["no", "\ue123", "안녕", "شكرا", ""], ["DejaVu Sans"])

    assert labels == ["no", "class 2", "class 3", "شكرا", "class 5"]


def test_the_families_are_installed_so_that_matplotlib_finds_each():
    assert gloss_labels(["a$b"], available_families()) == ["a$b"]


def test_a_character_that_no_font_has_is_an_empty_square():
    assert drawn_text("a \U000e0041b\n\uf8ffc", ["DejaVu Sans"]) == "a □b □c"
