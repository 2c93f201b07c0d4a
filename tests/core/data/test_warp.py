import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.data import augment as warp

ASPECT = np.array([1.0, 4 / 3, 0.5])
CORNERS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]


def person(seed: int, num_clips: int = 3, num_frames: int = 5) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    landmarks = torch.rand(num_clips, num_frames, 54, 2, generator=rng)
    is_missing = torch.rand(num_clips, num_frames, 54, 1, generator=rng) < 0.2
    return landmarks.masked_fill(is_missing, torch.nan)


def with_points(points: list[tuple[float, float]]) -> torch.Tensor:
    landmarks = torch.full((1, 1, 54, 2), torch.nan)
    landmarks[0, 0, : len(points)] = torch.tensor(points)
    return landmarks


def test_a_quarter_turn_goes_clockwise_about_the_centre():
    landmarks = with_points([(0.5, 0.5), (1.0, 0.5), (0.5, 0.25)])

    turned = warp.project(landmarks, warp.rotation(np.array([90.0]), np.array([1.0])))

    assert_close(turned[0, 0, :3], torch.tensor([[0.5, 0.5], [0.5, 1.0], [0.75, 0.5]]))


def test_a_quarter_turn_of_a_wide_image_keeps_pixel_lengths():
    # In an image twice as wide as high, a quarter of its width is half of its height.
    landmarks = with_points([(0.75, 0.5), (0.5, 0.75)])

    turned = warp.project(landmarks, warp.rotation(np.array([90.0]), np.array([2.0])))

    assert_close(turned[0, 0, :2], torch.tensor([[0.5, 1.0], [0.375, 0.5]]))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("is_left", [True, False])
def test_shear_moves_the_corners_of_one_side_inwards(share, is_left):
    maps = warp.shear(np.array([share]), np.array([is_left]))

    moved = warp.project(with_points(CORNERS), maps)

    if is_left:
        expected = [(share, share), (1.0, 0.0), (share, 1 - share), (1.0, 1.0)]
    else:
        expected = [(0.0, 0.0), (1 - share, share), (0.0, 1.0), (1 - share, 1 - share)]
    assert_close(moved[0, 0, :4], torch.tensor(expected))


def test_shear_keeps_straight_lines_straight():
    line = [(0.1, 0.2), (0.4, 0.5), (0.8, 0.9)]

    a, b, c = warp.project(with_points(line), warp.shear(np.array([0.2]), np.array([True])))[
        0, 0, :3
    ]

    area = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
    assert area.abs() < 1e-6
    assert (b - a).norm() / (c - b).norm() != pytest.approx(3 / 4, abs=0.01)  # not affine


def test_landmarks_beyond_the_horizon_of_a_sheared_image_stay_finite():
    landmarks = with_points([(2.0, 0.5), (2.1, 0.5), (30.0, -8.0)])

    moved = warp.project(landmarks, warp.shear(np.array([0.25]), np.array([True])))

    assert moved[0, 0, :3].isfinite().all()


def test_squeeze_stretches_what_is_left_between_the_cuts_to_the_whole_width():
    landmarks = with_points([(0.1, 0.3), (0.95, 0.7), (0.525, 0.0)])

    moved = warp.project(landmarks, warp.squeeze(np.array([0.1]), np.array([0.05])))

    assert_close(moved[0, 0, :3], torch.tensor([[0.0, 0.3], [1.0, 0.7], [0.5, 0.0]]))


def test_the_map_that_changes_nothing_changes_no_bit():
    landmarks = person(0)
    nothing = warp.squeeze(np.zeros(3), np.zeros(3))

    assert torch.equal(warp.project(landmarks, nothing).nan_to_num(9), landmarks.nan_to_num(9))


def plain_rotate_arms(landmarks: np.ndarray, degrees: np.ndarray, aspect: float) -> np.ndarray:
    """One clip, one frame, one joint, one landmark at a time."""
    moved = landmarks.astype(np.float64)
    arms = [("left", skeleton.LEFT_HAND), ("right", skeleton.RIGHT_HAND)]
    names = skeleton.BODY_NAMES
    for frame in moved:
        for arm, (side, hand) in enumerate(arms):
            elbow, wrist = names.index(f"{side}Elbow"), names.index(f"{side}Wrist")
            fingers = list(range(hand.start, hand.stop))
            chain = [
                (names.index(f"{side}Shoulder"), [elbow, wrist, *fingers]),
                (elbow, [wrist, *fingers]),
            ]
            for joint, (pivot, beyond) in enumerate(chain):
                if np.isnan(frame[pivot]).any():
                    continue
                angle = math.radians(degrees[arm, joint])
                px, py = frame[pivot]
                for landmark in beyond:
                    u, v = (frame[landmark, 0] - px) * aspect, frame[landmark, 1] - py
                    frame[landmark, 0] = px + (math.cos(angle) * u - math.sin(angle) * v) / aspect
                    frame[landmark, 1] = py + math.sin(angle) * u + math.cos(angle) * v
    return moved


@pytest.mark.parametrize("seed", range(4))
def test_arm_rotation_equals_a_plain_loop(seed):
    landmarks = person(seed)
    degrees = np.random.default_rng(seed).uniform(-60, 60, (3, 2, 2))
    degrees[seed % 3, 0, 1] = 0.0

    turned = warp.rotate_arms(landmarks, degrees, ASPECT).numpy()

    expected = [
        plain_rotate_arms(clip, angles, aspect)
        for clip, angles, aspect in zip(landmarks.numpy(), degrees, ASPECT, strict=True)
    ]
    np.testing.assert_allclose(turned, np.stack(expected), atol=2e-6)


def test_nothing_beyond_a_missing_joint_or_a_joint_at_rest_changes_a_bit():
    landmarks = person(5)
    landmarks[0, :, [skeleton.LEFT_SHOULDER, skeleton.LEFT_ELBOW]] = torch.nan
    degrees = np.zeros((3, 2, 2))
    degrees[0, 0] = 30.0

    turned = warp.rotate_arms(landmarks, degrees, ASPECT)

    assert torch.equal(turned.nan_to_num(9), landmarks.nan_to_num(9))


def test_bones_keep_their_length_in_pixels():
    landmarks = torch.rand(3, 5, 54, 2, generator=torch.Generator().manual_seed(6))
    degrees = np.random.default_rng(6).uniform(-60, 60, (3, 2, 2))

    turned = warp.rotate_arms(landmarks, degrees, ASPECT)

    wide = torch.from_numpy(np.stack([ASPECT, np.ones(3)], axis=-1)).float()[:, None]
    for a, b in [(6, 8), (8, 10), (10, 40), (7, 9), (9, 11), (11, 15), (20, 30)]:
        lengths = [((x[:, :, a] - x[:, :, b]) * wide).norm(dim=-1) for x in (landmarks, turned)]
        assert_close(lengths[1], lengths[0])
