"""The augmentation of the default recipe: time warp, affine maps, proportions, sizes of hands."""

import math

import numpy as np
import pytest
import torch
from clips import signing_clip
from numpy.testing import assert_allclose
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import stack_landmarks
from slrctl.core.data.augment import (
    affine,
    augment,
    jitter,
    project,
    rotation,
    scale_hands,
    vary_proportions,
    warped_positions,
)
from slrctl.core.data.prepare import even_positions
from slrctl.core.seeding import counter_uniform, keys_for
from slrctl.settings import AugmentSettings

ASPECT = np.array([1.0, 4 / 3, 0.5])
KEYS = np.random.default_rng(0).integers(0, 2**63, 300).astype(np.uint64)
LEFT, RIGHT = skeleton.LEFT_HAND, skeleton.RIGHT_HAND


def warp(keys=KEYS, num_frames=32, time_warp=0.0, time_cut=0.0) -> np.ndarray:
    settings = AugmentSettings(time_warp=time_warp, time_cut=time_cut)
    return warped_positions(keys, num_frames, settings).numpy()


def some_clips() -> torch.Tensor:
    return stack_landmarks([signing_clip(seed, length).landmarks for seed, length in
                            ((1, 6), (2, 9), (3, 4))])[0]  # fmt: skip


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [2, 3, 32])
@pytest.mark.parametrize("time_warp", [0.25, 1.0])
@pytest.mark.parametrize("time_cut", [0.0, 0.4])
def test_positions_rise_within_the_clip(num_frames, time_warp, time_cut):
    positions = warp(num_frames=num_frames, time_warp=time_warp, time_cut=time_cut)

    assert positions.shape == (300, num_frames)
    assert (np.diff(positions) > 0).all()
    assert (positions[:, 0] >= 0).all()
    assert (positions[:, -1] <= 1).all()


@pytest.mark.parametrize("num_frames", [1, 2, 32])
def test_without_warp_and_cut_positions_are_even(num_frames):
    assert_allclose(warp(num_frames=num_frames), even_positions(300, num_frames), atol=1e-15)


def test_a_warp_alone_keeps_both_ends():
    positions = warp(time_warp=0.5)

    assert (positions[:, 0] == 0).all()
    assert_allclose(positions[:, -1], 1, rtol=1e-14)


def test_speeds_are_drawn_at_six_points_and_change_linearly_between_them():
    keys = KEYS[:5]

    positions = warp(keys, num_frames=24, time_warp=0.25)

    for key, row in zip(keys, positions, strict=True):
        draws = counter_uniform(keys_for(np.array([key]), "time warp"), 6)[0]
        speeds = [math.exp(0.5 * (2 * draw - 1)) for draw in draws]
        steps = [np.interp(5 * step / 22, range(6), speeds) for step in range(23)]
        expected = [sum(steps[:frame]) / sum(steps) for frame in range(24)]
        assert_allclose(row, expected, rtol=1e-9, atol=1e-12)


def test_the_fastest_and_the_slowest_speed_fill_their_range():
    steps = np.diff(warp(time_warp=0.25, num_frames=7))

    ratios = steps.max(1) / steps.min(1)
    assert ratios.max() <= math.exp(1.0)
    assert ratios.max() > 0.9 * math.exp(1.0)


def test_up_to_the_share_of_a_clip_is_cut_off_either_end():
    positions = warp(time_cut=0.1, num_frames=5)

    for cut in (positions[:, 0], 1 - positions[:, -1]):
        assert 0 <= cut.min() < 0.002
        assert 0.098 < cut.max() <= 0.1
    assert_allclose(np.diff(positions, 2), 0, atol=1e-12)
    assert abs(np.corrcoef(positions[:, 0], positions[:, -1])[0, 1]) < 0.2


def test_positions_follow_from_the_key_alone():
    together = warp(time_warp=0.25, time_cut=0.1)
    alone = warp(KEYS[7:8], time_warp=0.25, time_cut=0.1)

    np.testing.assert_array_equal(alone[0], together[7])
    assert len(np.unique(together, axis=0)) == 300


# --- affine maps of the image ---------------------------------------------------------------------


def test_an_affine_map_of_zero_draws_changes_no_bit():
    landmarks = some_clips()

    moved = project(landmarks, affine(np.zeros((3, 4)), 1.0, ASPECT))

    assert torch.equal(moved.nan_to_num(9), landmarks.nan_to_num(9))


@pytest.mark.parametrize("strength", [0.5, 1.0, 90 / 13])
def test_the_first_draw_rotates_by_up_to_13_degrees(strength):
    draws = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0.5, 0, 0, 0]])

    maps = affine(draws, strength, ASPECT)

    assert_allclose(maps, rotation(13 * strength * draws[:, 0], ASPECT), atol=1e-12)


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ((0.0, 1.0, -1.0, 0.0), (0.5 + 0.4 * 1.15, 0.5 + 0.3 * 0.85)),
        # In an image twice as wide as high a tenth of the height is a twentieth of the width.
        ((0.0, 0.0, 0.0, 1.0), (0.5 + 0.4 + 0.05 * 0.3, 0.5 + 0.3)),
    ],
    ids=["stretching", "slant"],
)
def test_the_other_draws_stretch_and_slant_about_the_centre(draws, expected):
    landmarks = torch.full((1, 1, 54, 2), torch.nan)
    landmarks[0, 0, :2] = torch.tensor([[0.9, 0.8], [0.5, 0.5]])

    moved = project(landmarks, affine(np.array([draws]), 1.0, np.array([2.0])))

    assert_close(moved[0, 0, :2], torch.tensor([expected, (0.5, 0.5)]))


def test_a_clips_affine_map_moves_all_of_its_landmarks_and_frames_alike():
    landmarks = some_clips()
    off = {"mirror": 0, "hand_size": 0, "frame_dropout": 0, "hand_dropout": 0}
    is_valid = torch.ones(landmarks.shape[:2], dtype=torch.bool)

    moved, _ = augment(
        landmarks, is_valid, ASPECT, KEYS[:3], AugmentSettings.model_validate(off), 60
    )

    for before, after in zip(landmarks, moved, strict=True):
        known = ~before.isnan().any(-1)
        points = torch.nn.functional.pad(before[known], (0, 1), value=1.0).double()
        fitted = torch.linalg.lstsq(points, after[known].double())
        assert (points @ fitted.solution - after[known]).abs().max() < 1e-5
        assert (after[known] - before[known]).abs().max() > 1e-3
    assert torch.equal(moved.isnan(), landmarks.isnan())


# --- proportions ----------------------------------------------------------------------------------


def test_proportions_scale_and_shift_body_and_hands_of_a_clip_together():
    placed = torch.randn(300, 2, 54, 2, generator=torch.Generator().manual_seed(1))

    varied = vary_proportions(placed, KEYS, 1.0)

    # From two landmarks the scale and the shift; they hold for all others and for all frames.
    scale = (varied[:, 0, 0] - varied[:, 0, 40]) / (placed[:, 0, 0] - placed[:, 0, 40])
    shift = varied[:, 0, 0] - scale * placed[:, 0, 0]
    expected = scale[:, None, None] * placed + shift[:, None, None]
    assert_close(varied, expected, rtol=0, atol=1e-3)
    assert 0.85 <= scale.min() + 1e-3 < 0.86
    assert 1.14 < scale.max() - 1e-3 <= 1.15
    assert -0.1 <= shift.min() + 2e-3 < -0.09
    assert 0.09 < shift.max() - 2e-3 <= 0.1


def test_proportions_follow_from_the_key_and_move_nothing_at_strength_0():
    placed = some_clips()

    together = vary_proportions(placed, KEYS[:3], 1.0)
    alone = vary_proportions(placed[1:2], KEYS[1:2], 1.0)

    assert torch.equal(alone[0].nan_to_num(9), together[1].nan_to_num(9))
    assert torch.equal(together.isnan(), placed.isnan())
    assert vary_proportions(placed, KEYS[:3], 0.0) is placed


# --- sizes of hands -------------------------------------------------------------------------------


def test_hands_are_scaled_about_the_mean_of_their_present_landmarks():
    landmarks, factors = some_clips(), np.array([[0.8, 1.1], [1.2, 1.0], [1.0, 0.9]])

    scaled = scale_hands(landmarks, factors).numpy()

    expected = landmarks.numpy().astype(np.float64)
    for clip, of_clip in zip(expected, factors, strict=True):
        for frame in clip:
            for hand, factor in zip((LEFT, RIGHT), of_clip, strict=True):
                points = [point for point in frame[hand] if not np.isnan(point).any()]
                if points:
                    middle = sum(points) / len(points)
                    frame[hand] = middle + factor * (frame[hand] - middle)
    assert_allclose(scaled, expected, atol=1e-6)
    assert torch.equal(torch.from_numpy(scaled[:, :, :12]).nan_to_num(9),
                       landmarks[:, :, :12].nan_to_num(9))  # fmt: skip


def test_the_sizes_of_both_hands_fill_their_range_apart_from_one_another():
    rng = np.random.default_rng(0)
    landmarks = torch.from_numpy(rng.random((300, 1, 54, 2), dtype=np.float32))
    off = {"mirror": 0, "affine": 0, "frame_dropout": 0, "hand_dropout": 0, "hand_size": 0.2}
    is_valid = torch.ones(300, 1, dtype=torch.bool)

    scaled, _ = augment(
        landmarks, is_valid, np.ones(300), KEYS, AugmentSettings.model_validate(off), 60
    )

    left, right = (
        scaled[:, 0, hand].std(dim=1)[:, 0] / landmarks[:, 0, hand].std(dim=1)[:, 0]
        for hand in (LEFT, RIGHT)
    )
    for size in (left, right):
        assert 0.799 < size.min() < 0.81
        assert 1.19 < size.max() < 1.201
    assert torch.corrcoef(torch.stack([left, right]))[0, 1].abs() < 0.2


# --- jitter ---------------------------------------------------------------------------------------


def test_jitter_has_each_clips_own_size_and_none_where_that_is_not_known():
    landmarks = torch.zeros(3, 40, 54, 2)
    landmarks[:, 10:20, 7] = torch.nan
    sigma = torch.tensor([[0.5], [torch.nan], [0.01]])

    moved = jitter(landmarks, KEYS[:3], sigma)
    alone = jitter(landmarks[2:, :15], KEYS[2:3], sigma[2:])

    # 4,320 draws: a standard error of 1 %.
    spread = [clip[~clip.isnan()].std().item() for clip in moved]
    assert spread == pytest.approx([0.5, 0.0, 0.01], rel=0.05)
    assert torch.equal(moved.isnan(), landmarks.isnan())
    assert torch.equal(alone[0].nan_to_num(9), moved[2, :15].nan_to_num(9))
