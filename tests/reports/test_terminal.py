import numpy as np
import pytest
from attention_maps import directed, softmax_rows

from slrctl.core import skeleton
from slrctl.reports.skeletons import LEFT_HAND, RIGHT_HAND, Window
from slrctl.reports.terminal import draw_braille, draw_letters, fit_size, map_lines

WHOLE = Window(0.0, 1.0, 0.0, 1.0)
CROSS = "\N{MULTIPLICATION SIGN}"


@pytest.fixture
def maps():
    """Return both maps between the hands of a long clip; the left hand enters late."""
    generator = np.random.default_rng(0)
    left, right = np.arange(204) >= 30, np.ones(204, bool)
    forth = softmax_rows(generator.normal(size=(3, 204, 204)), right)
    back = softmax_rows(generator.normal(size=(3, 204, 204)), left)
    return (
        directed("left_to_right", forth, left, right),
        directed("right_to_left", back, right, left),
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("has_colour", [True, False])
def test_maps_fit_the_window(maps, width, has_colour):
    lines = map_lines(maps, width, has_colour=has_colour)

    assert max(line.cell_len for line in lines) <= width


def test_frames_without_the_hand_are_marked(maps):
    lines = [line.plain for line in map_lines(maps, 200, has_colour=False)]

    # Blocks of 3 frames: the first 5 lines hold 2 of them each, all without the left hand.
    assert [line[3] for line in lines[3:9]] == [*CROSS * 5, " "]
    assert "3 frames" in lines[-1]


def test_without_colour_more_attention_is_a_darker_shade():
    weights = np.full((4, 4), 0.1)
    weights[:, 1] = 0.7

    lines = map_lines((directed("left_to_right", weights),), 80, has_colour=False)

    assert lines[3].plain[5:9] == "░█░░"


def test_in_colour_a_character_is_two_frames_of_the_reader():
    weights = np.zeros((2, 3))
    weights[0, 0] = weights[1, 1] = 1.0
    is_detected = [True, True, False]

    lines = map_lines((directed("left_to_right", weights, None, is_detected),), 80, has_colour=True)

    most, least, missing = "rgb(253,231,36)", "rgb(68,1,84)", "rgb(150,150,150)"
    styles = [str(span.style) for span in lines[3].spans[-3:]]
    assert styles == [f"{most} on {least}", f"{least} on {most}", f"{missing} on {missing}"]


def frame_with(**places: tuple[float, float]) -> np.ndarray:
    frame = np.full((54, 2), np.nan, np.float32)
    for name, place in places.items():
        frame[skeleton.LANDMARK_NAMES.index(name)] = place
    return frame


@pytest.mark.parametrize(
    ("places", "columns", "rows", "expected"),
    [
        ({"nose": (0, 0)}, 1, 1, ["⠁"]),
        ({"nose": (1, 0)}, 1, 1, ["⠈"]),
        ({"nose": (0, 1)}, 1, 1, ["⡀"]),
        ({"nose": (1, 1)}, 1, 1, ["⢀"]),
        ({"nose": (0, 1 / 3)}, 1, 1, ["⠂"]),
        ({"leftShoulder": (0, 0), "leftElbow": (1, 1)}, 2, 1, ["⠑⢄"]),
        ({}, 4, 2, ["    ", "    "]),
    ],
)
def test_landmarks_and_the_lines_between_them_are_dots_of_braille(places, columns, rows, expected):
    lines = draw_braille(frame_with(**places), 1.0, WHOLE, columns, rows)

    assert [line.plain for line in lines] == expected


@pytest.mark.parametrize(
    ("places", "aspect", "columns", "rows", "expected"),
    [
        ({"leftShoulder": (0, 0), "leftElbow": (1, 1)}, 1.0, 4, 4, [".", " .", "  .", "   ."]),
        # A window two heights wide shows an image of that aspect whole.
        ({"nose": (0.5, 0.0), "wrist_left": (1.0, 0.0)}, 2.0, 9, 1, ["    .   L"]),
        ({"nose": (5.0, 5.0)}, 1.0, 9, 3, ["", "", ""]),
        ({}, 1.0, 4, 2, ["", ""]),
    ],
)
def test_without_colour_a_frame_is_drawn_in_letters(places, aspect, columns, rows, expected):
    window = WHOLE._replace(right=aspect)

    assert draw_letters(frame_with(**places), aspect, window, columns, rows) == expected


def test_hands_have_their_own_letters_and_colours_and_lie_over_the_body():
    frame = frame_with(leftWrist=(0.0, 0.0), wrist_left=(0.0, 0.0), wrist_right=(1.0, 0.0))

    assert draw_letters(frame, 1.0, WHOLE, 2, 1) == ["LR"]
    (line,) = draw_braille(frame, 1.0, WHOLE, 2, 1)
    assert [span.style for span in line.spans] == [LEFT_HAND.color, RIGHT_HAND.color]


def test_a_missing_hand_is_marked_at_its_wrist():
    frame = frame_with(leftWrist=(0.0, 0.0), rightWrist=(1.0, 0.0), wrist_right=(1.0, 0.0))

    assert draw_letters(frame, 1.0, WHOLE, 3, 1) == ["l R"]
    (line,) = draw_braille(frame, 1.0, WHOLE, 3, 1)
    assert line.plain[0] == "○"
    assert line.spans[0].style == LEFT_HAND.color


def test_what_lies_outside_the_window_is_left_out():
    frame = frame_with(nose=(1e9, 0.5), neck=(0.5, 0.5), leftWrist=(-4.0, 0.5))

    assert "." in draw_letters(frame, 1.0, WHOLE, 9, 3)[1]


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
