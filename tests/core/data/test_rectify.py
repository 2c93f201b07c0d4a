import math

import numpy as np
import pytest
from plain_rectification import plain_rectify

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.rectify import rectify, rectify_clips
from slrctl.settings import PrepareSettings


def landmark(name: str, side: str = "left") -> int:
    return skeleton.LANDMARK_NAMES.index(f"{name}_{side}")


def random_frames(seed: int, num_frames: int, missing: float = 0.0) -> np.ndarray:
    """Landmarks anywhere, so that most joints are out of range."""
    rng = np.random.default_rng(seed)
    frames = rng.random((num_frames, 54, 2), dtype=np.float32)
    frames[rng.random((num_frames, 54)) < missing] = np.nan
    return frames


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize(("aspect", "alpha"), [(1.0, 0.4), (16 / 9, 0.4), (0.5, 1.0)])
def test_it_equals_a_plain_loop(missing, aspect, alpha):
    frames = random_frames(3, 120, missing)

    rectified = rectify(frames, np.full(120, aspect), alpha)

    np.testing.assert_allclose(rectified, plain_rectify(frames, aspect, alpha), atol=3e-6)


@pytest.mark.parametrize("name", ["asl14", "ksl13"])
def test_it_equals_a_plain_loop_on_recorded_clips(shared_data, name):
    clips = load_dataset(shared_data / f"{name}.parquet").clips[::400]
    frames = np.concatenate([clip.landmarks for clip in clips])

    rectified = rectify(frames, np.full(len(frames), 1.3), 0.4)

    np.testing.assert_allclose(rectified, plain_rectify(frames, 1.3, 0.4), atol=3e-6)


# A left hand held up, its palm to the camera: fingers along -y, the thumb at smaller x.
OPEN_HAND = {
    "wrist": (0.50, 0.80),
    "indexMCP": (0.47, 0.60), "indexPIP": (0.47, 0.55), "indexDIP": (0.47, 0.51),
    "indexTip": (0.47, 0.48),
    "middleMCP": (0.50, 0.59), "middlePIP": (0.50, 0.53), "middleDIP": (0.50, 0.49),
    "middleTip": (0.50, 0.45),
    "ringMCP": (0.53, 0.60), "ringPIP": (0.53, 0.55), "ringDIP": (0.53, 0.51),
    "ringTip": (0.53, 0.48),
    "littleMCP": (0.56, 0.62), "littlePIP": (0.56, 0.58), "littleDIP": (0.56, 0.55),
    "littleTip": (0.56, 0.53),
    "thumbCMC": (0.475, 0.75), "thumbMP": (0.465, 0.70), "thumbIP": (0.465, 0.66),
    "thumbTip": (0.465, 0.63),
}  # fmt: skip


def open_hand(**moved: tuple[float, float]) -> np.ndarray:
    frames = np.full((1, 54, 2), np.nan, np.float32)
    for name, point in (OPEN_HAND | moved).items():
        frames[0, landmark(name)] = point
    return frames


def turned_back(**moved: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """The landmarks of an open hand that rectification moves, and where to."""
    frames = open_hand(**moved)
    rectified = rectify(frames, np.ones(1), 0.4)
    return {
        name: tuple(rectified[0, landmark(name)].tolist())
        for name in skeleton.HAND_NAMES
        if not same_bits(rectified[0, landmark(name)], frames[0, landmark(name)])
    }


def test_an_open_hand_keeps_every_bit():
    assert turned_back() == {}


def test_a_tip_bent_too_far_turns_back_by_a_share_of_the_excess():
    # From straight up, 120 degrees clockwise, 30 too many: 12 of them are taken back, to 108.
    bent = (0.50 + 0.04 * math.sin(math.radians(120)), 0.49 - 0.04 * math.cos(math.radians(120)))

    moved = turned_back(middleTip=bent)

    expected = (
        0.50 + 0.04 * math.sin(math.radians(108)),
        0.49 - 0.04 * math.cos(math.radians(108)),
    )
    assert moved == {"middleTip": pytest.approx(expected, abs=1e-6)}


def test_what_lies_beyond_a_joint_moves_along_without_turning():
    # The ring finger is folded straight back, 180 degrees: 50 too many at the PIP, 20 taken back.
    moved = turned_back(ringDIP=(0.53, 0.59), ringTip=(0.53, 0.62))

    radians = math.radians(160)
    dip = (0.53 + 0.04 * math.sin(radians), 0.55 - 0.04 * math.cos(radians))
    assert moved == {
        "ringDIP": pytest.approx(dip, abs=1e-6),
        "ringTip": pytest.approx((dip[0], dip[1] + 0.03), abs=1e-6),
    }


@pytest.mark.parametrize(("degrees", "expected"), [(40, 40), (95, 93), (-25, -25), (-40, -36)])
def test_the_thumb_of_a_left_palm_bends_further_towards_the_fingers(degrees, expected):
    # It bends clockwise in the picture, and its last joint reaches from -30 to 90 degrees.
    bend = math.radians(degrees)
    tip = (0.465 + 0.03 * math.sin(bend), 0.66 - 0.03 * math.cos(bend))

    rectified = rectify(open_hand(thumbTip=tip), np.ones(1), 0.4)[0]

    x, y = rectified[landmark("thumbTip")] - rectified[landmark("thumbIP")]
    assert math.degrees(math.atan2(x, -y)) == pytest.approx(expected, abs=1e-3)


def test_a_spread_finger_turns_back_about_the_wrist_and_takes_its_joints_along():
    # The little finger's base stands 40 degrees clockwise of the ring finger's: 25 too many.
    wrist, ring = np.array(OPEN_HAND["wrist"]), math.atan2(0.03, 0.20)

    def base(degrees: float) -> np.ndarray:
        angle = ring + math.radians(degrees)
        return wrist + 0.19 * np.array([math.sin(angle), -math.cos(angle)])

    def finger(degrees: float) -> dict[str, tuple[float, float]]:
        x, y = base(degrees)
        steps = {"MCP": 0.0, "PIP": 0.04, "DIP": 0.07, "Tip": 0.09}
        return {f"little{joint}": (x, y - step) for joint, step in steps.items()}

    moved = turned_back(**finger(40))

    assert moved == {
        name: pytest.approx(point, abs=1e-6) for name, point in finger(40 - 0.4 * 25).items()
    }


def test_the_body_and_what_is_missing_keep_every_bit():
    frames = random_frames(8, 100, 0.3)
    before = frames.copy()

    rectified = rectify(frames, np.ones(100), 0.4)

    assert same_bits(frames, before)
    assert same_bits(rectified[:, skeleton.BODY].copy(), frames[:, skeleton.BODY].copy())
    assert np.array_equal(np.isnan(rectified), np.isnan(frames))


def test_bones_without_length_are_left_alone():
    frames = open_hand()
    for name in skeleton.HAND_NAMES[1:]:
        frames[0, landmark(name)] = frames[0, landmark("wrist")]

    assert same_bits(rectify(frames, np.ones(1), 0.4), frames)


def test_a_bone_folded_exactly_back_is_half_a_turn_away_on_both_hands():
    # 180 degrees, not -180, for either direction of the bone before it.
    frames = open_hand(ringDIP=(0.53, 0.59), ringTip=(0.53, 0.62))
    frames[:, skeleton.RIGHT_HAND] = frames[:, skeleton.LEFT_HAND] * np.array([1, -1], np.float32)

    left, right = (
        rectify(frames, np.ones(1), 0.4)[0, landmark("ringDIP", side)] for side in ("left", "right")
    )

    assert left[0] > 0.53 > right[0]


def test_alpha_0_changes_no_bit_and_alpha_1_ends_at_the_limit():
    tip = (0.50, 0.53)  # folded back onto the joint before it
    frames = open_hand(middleTip=tip)

    untouched, whole = (rectify(frames, np.ones(1), alpha) for alpha in (0.0, 1.0))

    assert same_bits(untouched, frames)
    np.testing.assert_allclose(whole[0, landmark("middleTip")], (0.54, 0.49), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7, 31])
def test_a_frame_is_rectified_alike_to_the_bit_whatever_lies_beside_it(size):
    frames, aspect = random_frames(9, 4999, 0.1), np.linspace(0.5, 2, 4999)

    together = rectify(frames, aspect, 0.4)

    for first in range(0, 120, size):
        rows = slice(first, first + size)
        assert same_bits(rectify(frames[rows], aspect[rows], 0.4), together[rows].copy())


def test_clips_and_frames_are_rows_of_one_array():
    frames = random_frames(10, 60)
    aspect = np.repeat([1.0, 1.5, 2.0], 20)

    stacked = rectify(frames.reshape(3, 20, 54, 2), aspect.reshape(3, 20), 0.4)

    assert same_bits(stacked, rectify(frames, aspect, 0.4))


def test_clips_are_rectified_in_their_order_each_by_its_own_aspect():
    clips = [
        Clip(f"clip {number}", "a", random_frames(number, 700 * number), aspect=number / 2)
        for number in range(1, 5)
    ]

    rectified = list(rectify_clips(iter(clips), PrepareSettings(rectify=True, rectify_alpha=0.3)))

    for clip, after in zip(clips, rectified, strict=True):
        expected = rectify(clip.landmarks, np.full(clip.num_frames, clip.aspect), 0.3)
        assert same_bits(after.landmarks, expected)
        assert (after.clip_id, after.aspect) == (clip.clip_id, clip.aspect)
