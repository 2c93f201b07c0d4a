"""The frames that the default model sees: rest cut off, gaps filled, resampled."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from clips import signing_clip
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import Clip, stack_landmarks
from slrctl.core.data.mirror import mirror_landmarks
from slrctl.core.data.prepare import (
    RAW,
    canonical_clips,
    canonical_settings,
    even_positions,
    fill_gaps,
    interpolate_frames,
    trim_rest,
)
from slrctl.settings import PrepareSettings


def clip_with_hands(num_frames: int, left: list[int], right: list[int]) -> Clip:
    """A body in every frame, numbered by its x; one landmark of a hand in the listed ones."""
    landmarks = np.full((num_frames, 54, 2), np.nan, np.float32)
    landmarks[:, :12] = np.arange(num_frames, dtype=np.float32)[:, None, None]
    landmarks[left, 20] = 0.5
    landmarks[right, 40] = 0.5
    return Clip("one", "a", landmarks)


@pytest.mark.parametrize(
    ("num_frames", "left", "right", "kept"),
    [
        (20, [5, 12], [7], range(4, 14)),
        (20, [7], [5, 12], range(4, 14)),
        (20, [0, 9], [], range(11)),
        (20, [], [10, 19], range(9, 20)),
        (20, [5, 10], [], range(4, 12)),  # 8 frames
        (20, [5, 9], [], range(20)),  # 7
        (20, [], [], range(20)),
        (6, [1, 3], [], range(6)),
        (6, [1, 4], [], range(6)),
        (1, [], [0], range(1)),
    ],
)
def test_rest_is_cut_to_a_frame_beside_the_hands_but_not_to_fewer_than_8(
    num_frames, left, right, kept
):
    trimmed = trim_rest(clip_with_hands(num_frames, left, right))

    assert trimmed.landmarks[:, skeleton.NOSE, 0].tolist() == list(kept)


@pytest.mark.parametrize("seed", range(4))
def test_rest_is_cut_alike_from_the_mirror_image(seed):
    landmarks = signing_clip(seed, 40).landmarks
    landmarks[: 5 + seed, 12:] = landmarks[33 - seed :, 12:] = np.nan

    of_mirror = trim_rest(Clip("one", "a", mirror_landmarks(landmarks))).landmarks
    trimmed = trim_rest(Clip("one", "a", landmarks)).landmarks

    assert len(trimmed) < 40
    np.testing.assert_array_equal(of_mirror, mirror_landmarks(trimmed))


def plain_fill(landmarks: np.ndarray, longest: int) -> np.ndarray:
    """One gap of one landmark at a time."""
    filled = landmarks.astype(np.float64)
    for v in range(54):
        known = [t for t, point in enumerate(landmarks[:, v]) if not np.isnan(point).any()]
        for first, last in pairwise(known):
            if last - first - 1 <= longest:
                for t in range(first + 1, last):
                    share = (t - first) / (last - first)
                    filled[t, v] = (1 - share) * filled[first, v] + share * filled[last, v]
    return filled


@pytest.mark.parametrize("longest", [0, 1, 3, 50])
@pytest.mark.parametrize("seed", range(3))
def test_gaps_are_filled_as_by_a_plain_loop(longest, seed):
    landmarks = signing_clip(seed, 25).landmarks
    landmarks[4, 15, 1] = np.nan  # half a landmark is a missing one
    before = landmarks.copy()

    filled = fill_gaps(landmarks, longest)

    np.testing.assert_allclose(filled, plain_fill(landmarks, longest), atol=1e-6)
    np.testing.assert_array_equal(landmarks, before)


def test_a_gap_of_the_longest_kind_is_filled_and_a_longer_one_or_one_at_an_end_stays():
    landmarks = clip_with_hands(12, [1, 4], [1, 5]).landmarks
    landmarks[4, 20], landmarks[5, 40] = 1.1, 1.1

    filled = fill_gaps(landmarks, 2)

    nan = np.nan
    expected = [nan, 0.5, 0.7, 0.9, 1.1, nan]
    np.testing.assert_allclose(filled[:6, 20, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(filled[:, 40], landmarks[:, 40])


def test_frames_are_interpolated_and_where_one_lacks_a_landmark_the_nearer_decides():
    landmarks = torch.full((1, 5, 54, 2), torch.nan)
    landmarks[0, :3, skeleton.NOSE] = torch.tensor([[0.0, 3.0], [10.0, 5.0], [20.0, 1.0]])
    positions = torch.tensor([[0.0, 0.125, 0.25, 0.55, 0.7, 1.0]], dtype=torch.float64)

    # 5 frames, of which the last two lack the nose: times 0, 0.5, 1, 2.2, 2.8 and 4.
    found = interpolate_frames(landmarks, torch.tensor([5]), positions)[0, :, skeleton.NOSE]

    nan = torch.nan
    expected = [[0.0, 3.0], [5.0, 4.0], [10.0, 5.0], [20.0, 1.0], [nan, nan], [nan, nan]]
    assert_close(found, torch.tensor(expected), equal_nan=True)


@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_interpolation_equals_a_plain_loop(num_frames):
    landmarks = signing_clip(3, num_frames).landmarks
    positions = np.random.default_rng(1).random(20)

    found = interpolate_frames(
        torch.from_numpy(landmarks)[None],
        torch.tensor([num_frames]),
        torch.from_numpy(positions)[None],
    )[0]

    expected = np.full((20, 54, 2), np.nan)
    for row, position in enumerate(positions):
        time = position * (num_frames - 1)
        first = min(math.floor(time), num_frames - 1)
        last, share = min(first + 1, num_frames - 1), time - math.floor(time)
        for v in range(54):
            one, other = landmarks[first, v].astype(float), landmarks[last, v].astype(float)
            if np.isnan(one).any() or np.isnan(other).any():
                expected[row, v] = one if share < 0.5 else other
            else:
                expected[row, v] = (1 - share) * one + share * other
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_interpolated_frames_have_the_same_bits_whatever_the_padding():
    landmarks, mate = signing_clip(4, 9).landmarks, signing_clip(5, 30).landmarks
    positions = torch.rand(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    both, is_valid = stack_landmarks([landmarks, mate])
    together = interpolate_frames(both, is_valid.sum(1), positions)[0]
    alone = interpolate_frames(both[:1, :9], torch.tensor([9]), positions[:1])[0]

    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("num_frames", "expected"), [(1, [0.0]), (2, [0.0, 1.0]), (5, [0.0, 0.25, 0.5, 0.75, 1.0])]
)
def test_even_positions_hold_both_ends(num_frames, expected):
    assert even_positions(2, num_frames).tolist() == [expected] * 2


def test_as_many_frames_as_the_clip_has_are_its_own():
    landmarks = torch.from_numpy(signing_clip(6, 11).landmarks)[None]

    found = interpolate_frames(landmarks, torch.tensor([11]), even_positions(1, 11))

    assert_close(found, landmarks, equal_nan=True)


def test_the_raw_form_is_the_cleaned_clip_itself():
    clip = signing_clip(1, 20)

    (canonical,) = canonical_clips([clip], RAW)

    assert canonical is clip
    assert canonical_settings(RAW) == canonical_settings(None) == {}


def test_what_decides_the_canonical_form_is_named():
    settings = PrepareSettings(hand_box=2, num_frames=7, rectify_alpha=0.9)

    found = canonical_settings(settings)

    assert found == {"letterbox": True, "trim_rest": True, "fill_gaps": 5}


def test_the_canonical_form_is_trimmed_and_filled():
    clip = clip_with_hands(30, [2, 20], [5])
    clip.landmarks[10, :] = np.nan

    (canonical,) = canonical_clips([clip], PrepareSettings(fill_gaps=3))

    trimmed = trim_rest(clip).landmarks
    np.testing.assert_array_equal(canonical.landmarks, fill_gaps(trimmed, 3))
    assert canonical.num_frames == 21
    assert not np.isnan(canonical.landmarks[:, skeleton.NOSE]).any()
