import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.reports.skeletons import Window
from slrctl.reports.terminal import draw_braille, draw_letters, fit_size

WHOLE = Window(0.0, 1.0, 0.0, 1.0)


def frame_with(**places: tuple[float, float]) -> np.ndarray:
    frame = np.full((54, 2), np.nan, np.float32)
    for name, place in places.items():
        frame[skeleton.LANDMARK_NAMES.index(name)] = place
    return frame


def text_of(rows) -> list[str]:
    return ["".join(run.text for run in row) for row in rows]


@pytest.mark.parametrize(
    ("place", "character"),
    [((0, 0), "⠁"), ((1, 0), "⠈"), ((0, 1), "⡀"), ((1, 1), "⢀"), ((0, 1 / 3), "⠂")],
)
def test_a_landmark_is_the_dot_it_lies_on(place, character):
    assert text_of(draw_braille(frame_with(nose=place), 1.0, WHOLE, 1, 1)) == [character]


def test_a_line_goes_from_one_landmark_to_the_other():
    frame = frame_with(leftShoulder=(0, 0), leftElbow=(1, 1))

    assert text_of(draw_braille(frame, 1.0, WHOLE, 2, 1)) == ["⠑⢄"]
    assert draw_letters(frame, 1.0, WHOLE, 4, 4) == [".", " .", "  .", "   ."]


def test_x_is_stretched_by_the_aspect():
    frame = frame_with(nose=(0.5, 0.0), wrist_left=(1.0, 0.0))
    window = Window(0.0, 2.0, 0.0, 1.0)

    assert draw_letters(frame, 2.0, window, 9, 1) == ["    .   L"]


def test_hands_have_their_own_letters_and_lie_over_the_body():
    frame = frame_with(leftWrist=(0.0, 0.0), wrist_left=(0.0, 0.0), wrist_right=(1.0, 0.0))

    assert draw_letters(frame, 1.0, WHOLE, 2, 1) == ["LR"]
    (row,) = draw_braille(frame, 1.0, WHOLE, 2, 1)
    assert [run.part for run in row] == [1, 2]


def test_a_missing_hand_is_marked_at_its_wrist():
    frame = frame_with(leftWrist=(0.0, 0.0), rightWrist=(1.0, 0.0), wrist_right=(1.0, 0.0))

    assert draw_letters(frame, 1.0, WHOLE, 3, 1) == ["l R"]
    (row,) = draw_braille(frame, 1.0, WHOLE, 3, 1)
    assert row[0] == ("○", 1)


def test_what_lies_outside_the_window_is_left_out():
    frame = frame_with(nose=(1e9, 0.5), neck=(0.5, 0.5), leftWrist=(-4.0, 0.5))

    assert "." in draw_letters(frame, 1.0, WHOLE, 9, 3)[1]
    assert draw_letters(frame_with(nose=(5.0, 5.0)), 1.0, WHOLE, 9, 3) == ["", "", ""]


def test_an_empty_frame_is_an_empty_picture():
    frame = frame_with()

    assert text_of(draw_braille(frame, 1.0, WHOLE, 4, 2)) == ["    ", "    "]
    assert draw_letters(frame, 1.0, WHOLE, 4, 2) == ["", ""]


@pytest.mark.parametrize(
    ("window", "columns", "rows", "expected"),
    [
        (WHOLE, 80, 24, (48, 24)),
        (WHOLE, 20, 24, (20, 10)),
        (Window(0, 3, 0, 1), 60, 24, (60, 10)),
        (Window(0, 0.01, 0, 1), 60, 24, (1, 24)),
    ],
)
def test_a_picture_keeps_its_ratio_in_characters_twice_as_tall_as_wide(
    window, columns, rows, expected
):
    assert fit_size(window, columns, rows) == expected
