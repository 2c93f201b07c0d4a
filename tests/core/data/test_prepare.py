import math
import statistics

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import Clip, stack_landmarks
from slrctl.core.data.mirror import mirror_landmarks
from slrctl.core.data.prepare import (
    letterbox,
    normalise,
    place,
    prepare_clip,
    resample_frames,
)
from slrctl.settings import PrepareSettings

SETTINGS = PrepareSettings()
NOSE, NECK, RIGHT_EYE, LEFT_EYE, RIGHT_SHOULDER, LEFT_SHOULDER = 0, 1, 2, 3, 6, 7


def random_landmarks(seed: int, num_frames: int = 30) -> np.ndarray:
    """A person-like clip in which single landmarks, hands and shoulders come and go."""
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(0.2, 0.8, (num_frames, 54, 2)).astype(np.float32)
    jitter = rng.normal(0, 0.01, (num_frames, 6, 2))
    middle = [(0.5, 0.3), (0.5, 0.5), (0.45, 0.27), (0.55, 0.27), (0.38, 0.5), (0.62, 0.5)]
    landmarks[:, [NOSE, NECK, RIGHT_EYE, LEFT_EYE, RIGHT_SHOULDER, LEFT_SHOULDER]] = middle + jitter
    # Turned sideways: one shoulder almost behind the other.
    sideways = rng.random(num_frames) < 0.2
    landmarks[sideways, LEFT_SHOULDER] = landmarks[sideways, RIGHT_SHOULDER] + np.float32(0.02)
    landmarks[rng.random((num_frames, 54)) < 0.2] = np.nan
    for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND):
        landmarks[rng.random(num_frames) < 0.4, hand] = np.nan
        collapsed = rng.random(num_frames) < 0.15  # all landmarks in one point
        landmarks[collapsed, hand] = np.where(
            np.isnan(landmarks[collapsed, hand]), np.nan, landmarks[collapsed, 40:41]
        )
    landmarks[: num_frames // 6, NECK] = np.nan
    return landmarks


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.hypot(float(a[0] - b[0]), float(a[1] - b[1]))


def plain_body_boxes(frames: np.ndarray) -> list[tuple[float, float, float] | None]:
    """Left edge, top edge and side of every frame's own box, written down from the rule."""
    shoulders = [distance(f[RIGHT_SHOULDER], f[LEFT_SHOULDER]) for f in frames]
    heads = [distance(f[NECK], f[NOSE]) for f in frames]
    known = [s for s in shoulders if not math.isnan(s)]
    half = statistics.median(known) / 2 if known else math.nan
    ratios = [s / h for s, h in zip(shoulders, heads, strict=True) if not math.isnan(s) and h > 0]
    ratio = statistics.median(ratios) if ratios else math.nan
    boxes: list[tuple[float, float, float] | None] = []
    for frame, shoulder, head in zip(frames, shoulders, heads, strict=True):
        unit = shoulder if shoulder >= half else head * ratio
        if math.isnan(frame[NECK, 0]) or not (unit > 0 and math.isfinite(unit)):
            boxes.append(None)
            continue
        eyes = [y for y in (frame[RIGHT_EYE, 1], frame[LEFT_EYE, 1]) if not math.isnan(y)]
        if eyes:
            line = sum(map(float, eyes)) / len(eyes)
        elif not math.isnan(frame[NOSE, 1]):
            line = float(frame[NOSE, 1])
        else:
            line = float(frame[NECK, 1]) - 1.3 * unit
        boxes.append((float(frame[NECK, 0]) - 3 * unit, line - 0.5 * unit, 6 * unit))
    return boxes


def plain_hand_sides(hand: np.ndarray) -> list[float | None]:
    sides: list[float | None] = []
    for frame in hand:
        present = frame[~np.isnan(frame[:, 0])]
        side = float((present.max(0) - present.min(0)).max()) if len(present) else 0.0
        sides.append(1.2 * side if side > 0 else None)
    return sides


def carried(values: list, default):
    """Fill each gap with the value before it, the gap at the beginning with the first value."""
    last = next((value for value in values if value is not None), default)
    filled = []
    for value in values:
        last = last if value is None else value
        filled.append(last)
    return filled


def plain_normalise(frames: np.ndarray) -> np.ndarray:
    frames = frames.astype(np.float64)
    prepared = np.full_like(frames, np.nan)
    for t, box in enumerate(carried(plain_body_boxes(frames), None)):
        if box is not None:
            left, top, side = box
            prepared[t, :12] = (frames[t, :12] - [left, top]) / side - 0.5
    for part in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND):
        hand = frames[:, part]
        for t, side in enumerate(carried(plain_hand_sides(hand), 1.2)):
            present = hand[t][~np.isnan(hand[t, :, 0])]
            if len(present):
                corner = (present.max(0) + present.min(0)) / 2 - side / 2
                prepared[t, part] = (hand[t] - corner) / side - 0.5
    return prepared


def real_clips(shared_data, name: str, every: int) -> list[np.ndarray]:
    table = pq.read_table(shared_data / name, columns=["landmarks"]).column("landmarks")
    return [
        np.array(row.values, dtype=np.float32).reshape(-1, 54, 2) for row in list(table)[::every]
    ]


@pytest.mark.parametrize("seed", range(12))
def test_normalisation_equals_a_frame_by_frame_loop(seed):
    landmarks = random_landmarks(seed)

    prepared = prepare_clip(landmarks, SETTINGS)

    np.testing.assert_allclose(prepared, plain_normalise(landmarks), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["asl14.parquet", "ksl13.parquet"])
def test_normalisation_of_real_clips_equals_a_frame_by_frame_loop(shared_data, name):
    clips = real_clips(shared_data, name, every=100)

    prepared = normalise(stack_landmarks(clips)[0], SETTINGS).numpy()

    expected = stack_landmarks([plain_normalise(clip).astype(np.float32) for clip in clips])[0]
    np.testing.assert_allclose(prepared, expected, atol=5e-5, rtol=1e-4)


def test_a_frame_worked_by_hand():
    landmarks = np.full((1, 54, 2), np.nan, np.float32)
    landmarks[0, [NECK, RIGHT_EYE, LEFT_EYE]] = [[0.5, 0.5], [0.45, 0.3], [0.55, 0.34]]
    landmarks[0, [RIGHT_SHOULDER, LEFT_SHOULDER]] = [[0.4, 0.5], [0.6, 0.5]]
    landmarks[0, 12:14] = [[0.1, 0.1], [0.3, 0.2]]

    prepared = prepare_clip(landmarks, SETTINGS)

    # Unit 0.2: the box is 1.2 wide from x = -0.1, and from y = 0.32 - 0.1 = 0.22.
    np.testing.assert_allclose(prepared[0, NECK], [0.0, 0.28 / 1.2 - 0.5], atol=1e-6)
    np.testing.assert_allclose(
        prepared[0, RIGHT_SHOULDER], [-0.1 / 1.2, 0.28 / 1.2 - 0.5], atol=1e-6
    )
    # The hand's box has its centre at (0.2, 0.15) and a side of 1.2 x 0.2.
    np.testing.assert_allclose(prepared[0, 12], [-0.1 / 0.24, -0.05 / 0.24], atol=1e-6)


def test_the_median_of_an_even_count_is_the_mean_of_the_middle_two():
    # Shoulder distances 0.1, 0.2, 0.7, 0.8: half the median is 0.225, so two frames fall under
    # it; half the lower middle value, 0.1, would keep both.
    landmarks = np.full((4, 54, 2), np.nan, np.float32)
    landmarks[:, NECK] = [0.5, 0.5]
    landmarks[:, NOSE] = [0.5, 0.3]
    landmarks[:, RIGHT_SHOULDER] = [0.0, 0.5]
    landmarks[:, LEFT_SHOULDER, 0] = [0.1, 0.2, 0.7, 0.8]
    landmarks[:, LEFT_SHOULDER, 1] = 0.5

    prepared = prepare_clip(landmarks, SETTINGS)

    # The ratio to the head of 0.2 has the median 2.25, so the unit is 0.45 in the narrow frames.
    units = np.array([0.45, 0.45, 0.7, 0.8])
    np.testing.assert_allclose(prepared[:, RIGHT_SHOULDER, 0], -0.5 / (6 * units), rtol=1e-5)


def test_a_nose_on_the_neck_has_no_part_in_the_ratio():
    landmarks = np.full((4, 54, 2), np.nan, np.float32)
    landmarks[:, NECK] = [0.5, 0.5]
    landmarks[:, NOSE, 0] = 0.5
    landmarks[:, NOSE, 1] = [0.5, 0.4, 0.3, 0.4]
    landmarks[:3, RIGHT_SHOULDER] = [0.3, 0.5]
    landmarks[:3, LEFT_SHOULDER] = [0.7, 0.5]

    prepared = prepare_clip(landmarks, SETTINGS)

    # Ratios 0.4 / 0.1 and 0.4 / 0.2: their median 3 makes the last frame's unit 0.3. Its box
    # begins 0.15 above the nose.
    assert prepared[3, NECK, 1] == pytest.approx((0.5 - 0.25) / 1.8 - 0.5, abs=1e-6)


@pytest.mark.parametrize("shift", [(0.3, -0.2), (-5.0, 7.0)])
@pytest.mark.parametrize("scale", [1.0, 0.25, 16.0])
def test_shift_and_uniform_scale_change_nothing(shift, scale):
    landmarks = random_landmarks(1)

    moved = landmarks * np.float32(scale) + np.array(shift, np.float32)

    expected = prepare_clip(landmarks, SETTINGS)
    # Collapsed hands of a shifted clip stay collapsed: their points are equal to the bit.
    np.testing.assert_allclose(prepare_clip(moved, SETTINGS), expected, atol=2e-4)


def test_the_result_mirrors_with_the_clip():
    landmarks = random_landmarks(2)
    mirrored = landmarks[:, skeleton.MIRROR] * np.array([-1, 1], np.float32) + [[[1, 0]]]

    prepared = prepare_clip(mirrored.astype(np.float32), SETTINGS)

    expected = prepare_clip(landmarks, SETTINGS)[:, skeleton.MIRROR] * np.array([-1, 1], np.float32)
    np.testing.assert_allclose(prepared, expected, atol=2e-5)


@pytest.mark.parametrize("hand_box", [1.0, 1.2, 2.0])
def test_a_hand_stays_within_its_box(hand_box):
    landmarks = random_landmarks(3, num_frames=200)

    hands = prepare_clip(landmarks, PrepareSettings(hand_box=hand_box))[:, 12:]

    largest = np.nanmax(np.abs(hands.reshape(200, 2, 21, 2)), axis=(2, 3), initial=0)
    assert largest.max() == pytest.approx(0.5 / hand_box, abs=1e-6)


def test_exactly_the_missing_landmarks_are_missing_afterwards():
    landmarks = random_landmarks(4)

    prepared = prepare_clip(landmarks, SETTINGS)

    np.testing.assert_array_equal(np.isnan(prepared), np.isnan(landmarks))


def test_half_a_landmark_is_a_missing_one():
    landmarks = random_landmarks(5)
    whole, half = landmarks.copy(), landmarks.copy()
    whole[3:9, [NOSE, 15, 40]] = np.nan
    half[3:9, [NOSE, 15, 40], 1] = np.nan

    np.testing.assert_array_equal(prepare_clip(half, SETTINGS), prepare_clip(whole, SETTINGS))


@pytest.mark.parametrize("num_frames", [1, 7, 30])
def test_padding_and_batch_mates_change_no_bit(num_frames):
    landmarks = random_landmarks(6, num_frames)
    mates = [random_landmarks(seed, length) for seed, length in ((7, 41), (8, 3))]

    together = normalise(stack_landmarks([mates[0], landmarks, mates[1]])[0], SETTINGS)[1]

    np.testing.assert_array_equal(together[:num_frames], prepare_clip(landmarks, SETTINGS))
    assert together[num_frames:].isnan().all()


def test_a_clip_without_a_good_box_loses_its_body_and_keeps_its_hands():
    landmarks = random_landmarks(9)
    landmarks[:, NECK] = np.nan

    prepared = prepare_clip(landmarks, SETTINGS)

    assert np.isnan(prepared[:, :12]).all()
    np.testing.assert_array_equal(np.isnan(prepared[:, 12:]), np.isnan(landmarks[:, 12:]))


def test_a_hand_that_is_always_one_point_lies_in_the_centre_of_its_box():
    landmarks = np.full((3, 54, 2), np.nan, np.float32)
    landmarks[1, 20] = [0.7, 0.1]

    prepared = prepare_clip(landmarks, SETTINGS)

    np.testing.assert_array_equal(prepared[1, 20], [0.0, 0.0])


def test_a_clip_of_float64_is_prepared_in_float32_and_not_written_to():
    landmarks = random_landmarks(10).astype(np.float64)
    before = landmarks.copy()
    landmarks.flags.writeable = False

    prepared = prepare_clip(landmarks, SETTINGS)

    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(landmarks, before)


@pytest.mark.parametrize(("num_frames", "wanted"), [(10, 4), (300, 204), (5, 5), (7, 1), (3, 8)])
def test_resampling_picks_the_nearest_of_evenly_spaced_frames(num_frames, wanted):
    landmarks = random_landmarks(12, num_frames)

    resampled = resample_frames(landmarks, wanted)

    picks = np.round(np.linspace(0, num_frames - 1, wanted)).astype(int)
    np.testing.assert_array_equal(resampled, landmarks[picks])


def test_doubling_the_hand_box_halves_the_hand():
    landmarks = random_landmarks(13)

    small = prepare_clip(landmarks, PrepareSettings(hand_box=2.4))

    expected = torch.from_numpy(prepare_clip(landmarks, SETTINGS)[:, 12:] / 2)
    assert_close(torch.from_numpy(small[:, 12:]), expected, equal_nan=True)


# --- landmarks placed in the clip -----------------------------------------------------------------


def placed(landmarks: np.ndarray) -> np.ndarray:
    return place(torch.from_numpy(landmarks)[None])[0].numpy()


def test_landmarks_are_placed_from_the_usual_neck_in_the_usual_shoulder_distance():
    landmarks = np.full((4, 54, 2), np.nan, np.float32)
    landmarks[:3, NECK] = [[0.5, 0.5], [0.6, 0.9], [0.7, 0.6]]
    landmarks[:, RIGHT_SHOULDER] = [0.3, 0.5]
    landmarks[:, LEFT_SHOULDER, 0] = [0.55, 0.9, 0.6, 0.8]
    landmarks[:, LEFT_SHOULDER, 1] = 0.5
    landmarks[:, 20] = [0.6, 0.7]

    found = placed(landmarks)

    # The median neck is (0.6, 0.6); shoulders are 0.25, 0.6, 0.3 and 0.5 apart: 0.4 in between.
    np.testing.assert_allclose(found[:, 20], [[0.0, 0.25]] * 4, atol=1e-6)
    np.testing.assert_allclose(found[:3, NECK], [[-0.25, -0.25], [0, 0.75], [0.25, 0]], atol=1e-6)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(landmarks))


def test_of_a_signer_turned_sideways_the_head_tells_the_unit():
    landmarks = np.full((3, 54, 2), np.nan, np.float32)
    landmarks[:, NECK] = [0.5, 0.5]
    landmarks[:, NOSE, 1] = [0.3, 0.3, 0.4]
    landmarks[:, NOSE, 0] = 0.5
    landmarks[:, RIGHT_SHOULDER] = [0.3, 0.5]
    landmarks[:, LEFT_SHOULDER, 1] = 0.5
    landmarks[:, LEFT_SHOULDER, 0] = [0.7, 0.7, 0.31]

    found = placed(landmarks)

    # Units 0.4, 0.4 and, of a head of 0.1 at the usual ratio of 2, 0.2: the median is 0.4.
    np.testing.assert_allclose(found[:, RIGHT_SHOULDER], [[-0.5, 0.0]] * 3, atol=1e-6)


@pytest.mark.parametrize(("shift", "scale"), [((0.3, -0.2), 1.0), ((-1.0, 2.0), 0.25)])
def test_placed_landmarks_do_not_change_with_the_place_and_size_of_the_clip(shift, scale):
    landmarks = random_landmarks(1)

    moved = landmarks * np.float32(scale) + np.array(shift, np.float32)

    np.testing.assert_allclose(placed(moved), placed(landmarks), atol=2e-4)


def test_placed_landmarks_mirror_with_the_clip():
    landmarks = random_landmarks(2)

    found = placed(mirror_landmarks(landmarks))

    expected = placed(landmarks)[:, skeleton.MIRROR] * np.array([-1, 1], np.float32)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_padding_and_batch_mates_change_no_bit_of_placed_landmarks():
    landmarks, mates = random_landmarks(6, 7), [random_landmarks(7, 41), random_landmarks(8, 3)]

    together = place(stack_landmarks([mates[0], landmarks, mates[1]])[0])[1]

    np.testing.assert_array_equal(together[:7], placed(landmarks))
    assert together[7:].isnan().all()


def test_a_clip_without_a_neck_is_placed_nowhere():
    landmarks = random_landmarks(9)
    landmarks[:, NECK] = np.nan

    assert np.isnan(placed(landmarks)).all()


@pytest.mark.parametrize(("aspect", "reach"), [(2.0, (1.0, 0.5)), (0.5, (0.5, 1.0))])
def test_a_letterbox_is_the_largest_in_the_middle_of_a_square(aspect, reach):
    landmarks = np.zeros((1, 54, 2), np.float32)
    landmarks[0, 1] = 1.0

    fitted = letterbox(Clip("one", "a", landmarks, aspect=aspect))

    np.testing.assert_allclose(fitted.landmarks[0, 1] - fitted.landmarks[0, 0], reach)
    np.testing.assert_allclose(fitted.landmarks[0, :2].mean(0), [0.5, 0.5])
    assert fitted.aspect == 1


@pytest.mark.parametrize("aspect", [0.5, 4 / 3])
def test_a_letterbox_keeps_the_ratios_of_distances_in_the_image(aspect):
    landmarks = np.random.default_rng(0).random((1, 54, 2), dtype=np.float32)

    fitted = letterbox(Clip("one", "a", landmarks, aspect=aspect)).landmarks[0]

    in_image = np.linalg.norm((landmarks[0] - landmarks[0, 0]) * [aspect, 1.0], axis=-1)[1:]
    ratios = np.linalg.norm(fitted - fitted[0], axis=-1)[1:] / in_image
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


def test_a_square_image_needs_no_letterbox():
    clip = Clip("one", "a", random_landmarks(1))

    assert letterbox(clip) is clip
