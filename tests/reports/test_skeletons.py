import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from PIL import Image

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.reports.skeletons import (
    BODY,
    LEFT_HAND,
    RIGHT_HAND,
    draw_animation,
    draw_sheets,
    draw_skeleton,
    draw_strip,
    shown_frames,
    strip_name,
    window_of,
)

LEFT_WRIST, RIGHT_WRIST = 11, 10


def signing(num_frames: int, *, gloss: str = "book", **facts) -> Clip:
    """Draw landmarks around the middle of the image, all present."""
    rng = np.random.default_rng(num_frames)
    landmarks = rng.uniform(0.2, 0.8, (num_frames, 54, 2)).astype(np.float32)
    return Clip("clips:0", gloss, landmarks, **facts)


@pytest.fixture
def frame():
    return signing(1).landmarks[0]


def drawn(frame: np.ndarray, aspect: float = 1.0):
    axes = Figure().subplots()
    draw_skeleton(axes, frame, aspect=aspect)
    return axes


def segments(axes, stream) -> list[np.ndarray]:
    return [
        segment
        for lines in axes.collections
        if isinstance(lines, LineCollection)
        and np.allclose(lines.get_color(), to_rgba(stream.color))
        for segment in lines.get_segments()
    ]


def rings(axes) -> list[list[float]]:
    return [
        np.asarray(dots.get_offsets())[0].tolist()
        for dots in axes.collections
        if isinstance(dots, PathCollection) and np.allclose(dots.get_facecolor(), 1.0)
    ]


def panels(figure) -> list:
    """Return the axes that hold a skeleton; the bar of presence has ticks."""
    return [axes for axes in figure.axes if not len(axes.get_yticks())]


@pytest.mark.parametrize("stream", [BODY, LEFT_HAND, RIGHT_HAND])
def test_every_edge_is_drawn_in_the_colour_of_its_stream_where_its_landmarks_are(frame, stream):
    expected = [frame[[first, second]] * [2.0, 1.0] for first, second in stream.edges]

    assert_allclose(segments(drawn(frame, aspect=2.0), stream), expected, rtol=1e-6)


def test_a_missing_landmark_takes_only_its_own_lines_away(frame):
    frame[skeleton.LANDMARK_NAMES.index("indexDIP_left")] = np.nan

    axes = drawn(frame)

    assert len(segments(axes, LEFT_HAND)) == len(LEFT_HAND.edges) - 2
    assert len(segments(axes, RIGHT_HAND)) == len(RIGHT_HAND.edges)
    assert np.isfinite(np.array(segments(axes, LEFT_HAND))).all()


@pytest.mark.parametrize(
    ("missing", "ring"),
    [
        (range(12, 33), LEFT_WRIST),
        (range(33, 54), RIGHT_WRIST),
        ([*range(12, 33), LEFT_WRIST], None),
    ],
)
def test_a_missing_hand_leaves_a_ring_at_its_wrist_if_there_is_one(frame, missing, ring):
    frame[list(missing)] = np.nan

    assert_allclose(rings(drawn(frame)), [] if ring is None else [frame[ring]], rtol=1e-6)


@pytest.mark.parametrize(("is_empty", "texts"), [(False, []), (True, ["no landmarks"])])
def test_y_points_down_at_one_scale_and_a_frame_without_landmarks_says_so(frame, is_empty, texts):
    axes = drawn(np.full_like(frame, np.nan) if is_empty else frame)

    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert axes.get_aspect() == 1.0
    assert [text.get_text() for text in axes.texts] == texts


def test_the_window_holds_a_clip_and_ignores_a_stray_landmark():
    clip = signing(50)
    calm = window_of(clip.landmarks, 1.5)
    clip.landmarks[7, 3] = [40.0, -40.0]

    window = window_of(clip.landmarks, 1.5)

    assert window == pytest.approx(calm, abs=0.02)
    assert window.left < 1.5 * 0.21 < 1.5 * 0.79 < window.right
    assert window.top < 0.21 < 0.79 < window.bottom


def test_an_elbow_that_swings_out_and_an_arm_far_below_a_raised_hand_are_seen():
    swinging, hanging = signing(50).landmarks, signing(10).landmarks
    swinging[7, 8] = [-0.3, 0.5]
    hanging[:, skeleton.RIGHT_HAND] = [0.4, 0.3]
    hanging[:, skeleton.LEFT_HAND] = np.nan
    hanging[:, LEFT_WRIST] = [0.7, 1.4]

    assert window_of(swinging, 1.0).left < -0.3
    assert window_of(hanging, 1.0).bottom > 1.4


@pytest.mark.parametrize("num_present", [0, 1])
def test_the_window_of_next_to_nothing_has_an_extent(num_present):
    landmarks = np.full((2, 54, 2), np.nan, np.float32)
    landmarks[0, :num_present] = 0.5

    window = window_of(landmarks, 1.0)

    assert window.right - window.left >= 0.04
    assert window.bottom - window.top >= 0.04


@pytest.mark.parametrize(
    ("num_frames", "num_panels", "expected"),
    [(20, 3, [0, 10, 19]), (4, 8, [0, 1, 2, 3]), (1, 8, [0]), (9, 5, [0, 2, 4, 6, 8])],
)
def test_panels_are_spread_from_the_first_frame_to_the_last(num_frames, num_panels, expected):
    assert shown_frames(num_frames, num_panels).tolist() == expected


@pytest.mark.parametrize(("num_frames", "expected"), [(30, 8), (3, 3), (1, 1)])
def test_a_strip_has_eight_panels_if_it_has_the_frames(figures, tmp_path, num_frames, expected):
    draw_strip(signing(num_frames), tmp_path / "strip.png")

    shown = panels(figures["strip"])
    assert len(shown) == expected
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in shown}) == 1  # the same window


def test_the_bar_below_is_filled_where_a_hand_is_detected(figures, tmp_path):
    clip = signing(10)
    clip.landmarks[2:5, skeleton.LEFT_HAND] = np.nan
    clip.landmarks[:, skeleton.RIGHT_HAND] = np.nan

    draw_strip(clip, tmp_path / "strip.png")

    (bar,) = (axes for axes in figures["strip"].axes if len(axes.get_yticks()))
    left, right = bar.collections
    spans = [path.get_extents() for path in left.get_paths()]
    assert [(span.x0, span.x1) for span in spans] == [(-0.5, 1.5), (4.5, 9.5)]
    assert right.get_paths() == []


def test_the_same_clip_gives_the_same_picture_as_wide_as_a_text(tmp_path):
    for name in ("a.png", "b.png"):
        draw_strip(signing(5), tmp_path / name)

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1440


def test_an_animation_has_every_frame_at_the_speed_of_the_clip(tmp_path):
    clip = signing(7, fps=30.0)
    clip.landmarks[3] = np.nan
    draw_animation(clip, tmp_path / "clip.gif")

    with Image.open(tmp_path / "clip.gif") as gif:
        durations = []
        for number in range(gif.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            gif.seek(number)
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    assert len(durations) == 7
    # Hundredths of a second: 33.3 ms are 30 or 40, and 7 frames take 7 / 30 s together.
    assert sum(durations) == 230
    assert set(durations) == {30, 40}


def test_sheets_hold_nine_strips_a_page(figures, tmp_path):
    clips = [signing(10, gloss=str(number)) for number in range(10)]

    pages = draw_sheets(clips, tmp_path)

    assert [page.name for page in pages] == ["sheet-1.png", "sheet-2.png"]
    assert [len(panels(figures[page.stem])) for page in pages] == [9 * 8, 8]


@pytest.mark.parametrize(
    ("gloss", "name"),
    [("thank you!", "007-thank-you.png"), ("책", "007.png"), ("../x", "007-x.png")],
)
def test_the_name_of_a_strip_is_plain(gloss, name):
    assert strip_name(7, gloss) == name
