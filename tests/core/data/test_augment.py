"""Augmentation: maps worked by hand, shares counted, and the same bits whatever the batch."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import stack_landmarks
from slrctl.core.data.augment import (
    add_noise,
    augment,
    change_speed,
    drop_landmarks,
    project,
    rotate_arms,
    rotation,
    shear,
    squeeze,
)
from slrctl.core.data.mirror import mirror_landmarks
from slrctl.settings import AugmentSettings

MAX_FRAMES = 60
ASPECT = np.array([1.0, 4 / 3, 0.5])
CORNERS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
EVERYTHING = AugmentSettings(
    geometric=1,
    mirror=0.5,
    affine=1,
    hand_size=0.2,
    speed=1.5,
    frame_dropout=0.1,
    joint_dropout=0.1,
    hand_dropout=0.3,
    arm_probability=0.7,
)


def random_keys(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, count).astype(np.uint64)


def random_clip(num_frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    landmarks = rng.random((num_frames, 54, 2), dtype=np.float32)
    landmarks[rng.random((num_frames, 54)) < 0.2] = np.nan
    return landmarks


def many_clips(
    count: int, num_frames: int = 6, first_seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    seeds = range(first_seed, first_seed + count)
    return stack_landmarks([random_clip(num_frames, seed) for seed in seeds])


def settings_with(**changes: float) -> AugmentSettings:
    """Return augmentation of the named kinds alone."""
    off = {"geometric": 0, "mirror": 0, "affine": 0, "proportions": 0, "hand_size": 0, "jitter": 0}
    off |= {"time_warp": 0, "time_cut": 0, "frame_dropout": 0, "hand_dropout": 0}
    return AugmentSettings.model_validate({**off, **changes})


def varied(landmarks, is_valid, settings, seed=0, aspect=1.5):
    keys = random_keys(len(landmarks), seed)
    wide = np.full(len(landmarks), aspect)
    return augment(landmarks, is_valid, wide, keys, settings, MAX_FRAMES)


def is_changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (before.nan_to_num(9) != after.nan_to_num(9)).flatten(1).any(1)


def full_clips(num_clips: int, num_frames: int, seed: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(num_clips, num_frames, 54, 2, generator=rng)


# --- maps of the image ----------------------------------------------------------------------------


def with_points(points: list[tuple[float, float]]) -> torch.Tensor:
    landmarks = torch.full((1, 1, 54, 2), torch.nan)
    landmarks[0, 0, : len(points)] = torch.tensor(points)
    return landmarks


@pytest.mark.parametrize(
    ("aspect", "points", "expected"),
    [
        (1.0, [(0.5, 0.5), (1.0, 0.5), (0.5, 0.25)], [(0.5, 0.5), (0.5, 1.0), (0.75, 0.5)]),
        # In an image twice as wide as high, a quarter of its width is half of its height.
        (2.0, [(0.75, 0.5), (0.5, 0.75)], [(0.5, 1.0), (0.375, 0.5)]),
    ],
)
def test_a_quarter_turn_goes_clockwise_about_the_centre(aspect, points, expected):
    turned = project(with_points(points), rotation(np.array([90.0]), np.array([aspect])))

    assert_close(turned[0, 0, : len(points)], torch.tensor(expected))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("is_left", [True, False])
def test_shear_moves_the_corners_of_one_side_inwards(share, is_left):
    maps = shear(np.array([share]), np.array([is_left]))

    moved = project(with_points(CORNERS), maps)

    if is_left:
        expected = [(share, share), (1.0, 0.0), (share, 1 - share), (1.0, 1.0)]
    else:
        expected = [(0.0, 0.0), (1 - share, share), (0.0, 1.0), (1 - share, 1 - share)]
    assert_close(moved[0, 0, :4], torch.tensor(expected))


def test_shear_keeps_straight_lines_straight():
    line = [(0.1, 0.2), (0.4, 0.5), (0.8, 0.9)]

    a, b, c = project(with_points(line), shear(np.array([0.2]), np.array([True])))[0, 0, :3]

    area = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
    assert area.abs() < 1e-6
    assert (b - a).norm() / (c - b).norm() != pytest.approx(3 / 4, abs=0.01)  # not affine


def test_landmarks_beyond_the_horizon_of_a_sheared_image_stay_finite():
    landmarks = with_points([(2.0, 0.5), (2.1, 0.5), (30.0, -8.0)])

    moved = project(landmarks, shear(np.array([0.25]), np.array([True])))

    assert moved[0, 0, :3].isfinite().all()


def test_squeeze_stretches_what_is_left_between_the_cuts_to_the_whole_width():
    landmarks = with_points([(0.1, 0.3), (0.95, 0.7), (0.525, 0.0)])

    moved = project(landmarks, squeeze(np.array([0.1]), np.array([0.05])))

    assert_close(moved[0, 0, :3], torch.tensor([[0.0, 0.3], [1.0, 0.7], [0.5, 0.0]]))


def test_the_map_that_changes_nothing_changes_no_bit():
    landmarks = many_clips(3, 5)[0]
    nothing = squeeze(np.zeros(3), np.zeros(3))

    assert torch.equal(project(landmarks, nothing).nan_to_num(9), landmarks.nan_to_num(9))


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
    landmarks = many_clips(3, 5, first_seed=seed)[0]
    degrees = np.random.default_rng(seed).uniform(-60, 60, (3, 2, 2))
    degrees[seed % 3, 0, 1] = 0.0

    turned = rotate_arms(landmarks, degrees, ASPECT).numpy()

    expected = [
        plain_rotate_arms(clip, angles, aspect)
        for clip, angles, aspect in zip(landmarks.numpy(), degrees, ASPECT, strict=True)
    ]
    np.testing.assert_allclose(turned, np.stack(expected), atol=2e-6)


def test_nothing_beyond_a_missing_joint_or_a_joint_at_rest_changes_a_bit():
    landmarks = many_clips(3, 5, first_seed=5)[0]
    landmarks[0, :, [skeleton.LEFT_SHOULDER, skeleton.LEFT_ELBOW]] = torch.nan
    degrees = np.zeros((3, 2, 2))
    degrees[0, 0] = 30.0

    turned = rotate_arms(landmarks, degrees, ASPECT)

    assert torch.equal(turned.nan_to_num(9), landmarks.nan_to_num(9))


# --- missing landmarks ----------------------------------------------------------------------------


def dropped_from(landmarks: torch.Tensor, **changes: float) -> torch.Tensor:
    keys = random_keys(len(landmarks))
    return drop_landmarks(landmarks, keys, settings_with(**changes))


def test_frame_dropout_loses_whole_frames_at_its_rate():
    dropped = dropped_from(full_clips(400, 20), frame_dropout=0.2)

    lost = dropped.isnan().flatten(2)
    assert torch.equal(lost.any(-1), lost.all(-1))
    # 8000 frames: a standard error of 0.0045.
    assert lost.all(-1).float().mean().item() == pytest.approx(0.2, abs=0.018)


def test_joint_dropout_loses_single_landmarks_at_its_rate():
    dropped = dropped_from(full_clips(400, 20), joint_dropout=0.1)

    lost = dropped.isnan()
    assert torch.equal(lost[..., 0], lost[..., 1])
    # 432,000 landmarks: a standard error of 0.0005, of each landmark's own rate 0.0034.
    assert lost.float().mean().item() == pytest.approx(0.1, abs=0.002)
    per_landmark = lost[..., 0].float().mean((0, 1))
    np.testing.assert_allclose(per_landmark, 0.1, atol=0.017)


def test_hand_dropout_loses_one_hand_of_a_clip_either_as_often():
    dropped = dropped_from(full_clips(400, 20), hand_dropout=0.5)

    lost = dropped.isnan().all(-1)
    left = lost[:, :, skeleton.LEFT_HAND].flatten(1)
    right = lost[:, :, skeleton.RIGHT_HAND].flatten(1)
    assert not lost[:, :, skeleton.BODY].any()
    assert torch.equal(left.any(1), left.all(1))
    assert torch.equal(right.any(1), right.all(1))
    assert not (left.all(1) & right.all(1)).any()
    assert left.all(1).float().mean().item() == pytest.approx(0.25, abs=0.09)
    assert right.all(1).float().mean().item() == pytest.approx(0.25, abs=0.09)


@pytest.mark.parametrize("name", ["frame_dropout", "joint_dropout", "hand_dropout"])
def test_no_clip_loses_its_last_landmark(name):
    landmarks = torch.full((400, 2, 54, 2), torch.nan)
    landmarks[:, 1, 20] = 0.5  # all there is: one landmark of the left hand

    dropped = dropped_from(landmarks, **{name: 0.9})

    assert torch.equal(dropped.nan_to_num(9), landmarks.nan_to_num(9))


def test_a_clip_that_would_lose_everything_to_one_kind_still_loses_to_another():
    dropped = dropped_from(full_clips(400, 1), frame_dropout=0.999, joint_dropout=0.5)

    kept = (~dropped.isnan().any(-1)).flatten(1)
    assert kept.any(1).all()
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.02)


# --- everything together --------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [settings_with(), AugmentSettings(enabled=False, speed=2)])
def test_augmentation_that_is_off_hands_back_what_it_got(settings):
    landmarks, is_valid = many_clips(5)

    after, still_valid = varied(landmarks, is_valid, settings)

    assert after is landmarks
    assert still_valid is is_valid


@pytest.mark.parametrize("num_frames", [1, 17, 40])
@pytest.mark.parametrize("key", random_keys(6, seed=3).tolist())
def test_a_clip_is_varied_to_the_same_bits_whatever_its_batch(num_frames, key):
    clip, settings = random_clip(num_frames), EVERYTHING
    mates = [random_clip(length, seed) for length, seed in ((53, 1), (2, 2), (29, 3))]
    keys = random_keys(4, seed=4)
    keys[2] = key

    alone, alone_valid = augment(
        *stack_landmarks([clip]), np.array([1.3]), keys[2:3], settings, MAX_FRAMES
    )
    together, valid = augment(
        *stack_landmarks([*mates[:2], clip, mates[2]]),
        np.array([1.0, 0.7, 1.3, 2.0]),
        keys,
        settings,
        MAX_FRAMES,
    )

    length = int(alone_valid.sum())
    assert int(valid[2].sum()) == length
    noisy_alone = add_noise(alone, keys[2:3], 0.01)[0, :length]
    noisy_together = add_noise(together, keys, 0.01)[2, :length]
    assert torch.equal(noisy_together.nan_to_num(9), noisy_alone.nan_to_num(9))
    assert together[2, length:].isnan().all()


def test_another_key_varies_a_clip_otherwise():
    landmarks, is_valid = stack_landmarks([random_clip(8)] * 40)

    after, _ = varied(landmarks, is_valid, settings_with(geometric=1, arm_probability=1))

    assert len({clip.numpy().tobytes() for clip in after}) == 40


@pytest.mark.parametrize(
    "changes",
    [
        {"geometric": 1, "shear": 0, "squeeze": 0, "arm_degrees": 0},
        {"geometric": 1, "rotation_degrees": 0, "squeeze": 0, "arm_degrees": 0},
        {"geometric": 1, "rotation_degrees": 0, "shear": 0, "arm_degrees": 0},
        {"geometric": 1, "rotation_degrees": 0, "shear": 0, "squeeze": 0, "arm_probability": 1},
    ],
    ids=["rotation", "shear", "squeeze", "arms"],
)
@pytest.mark.parametrize("geometric", [1.0, 0.4])
def test_each_geometric_change_befalls_a_quarter_of_the_varied_clips(changes, geometric):
    landmarks, is_valid = many_clips(800, num_frames=2)

    after, _ = varied(landmarks, is_valid, settings_with(**{**changes, "geometric": geometric}))

    # Exactly one of four is drawn: were two drawn together, each would befall more. The standard
    # error is at most 0.0153.
    share = is_changed(landmarks, after).float().mean().item()
    assert share == pytest.approx(geometric / 4, abs=0.055)


def test_rotations_fill_their_range_both_ways():
    landmarks, is_valid = stack_landmarks([np.full((1, 54, 2), 0.5, np.float32)] * 2000)
    landmarks[:, 0, 0] = torch.tensor([1.0, 0.5])  # to the right of the centre
    settings = settings_with(geometric=1, shear=0, squeeze=0, arm_degrees=0, rotation_degrees=20)

    after, _ = varied(landmarks, is_valid, settings, aspect=1.0)

    x, y = (after[:, 0, 0] - 0.5).unbind(-1)
    angles = torch.rad2deg(torch.atan2(y, x))
    turned = angles[angles != 0]
    assert -20 <= turned.min() < -19
    assert 19 < turned.max() <= 20
    assert turned.mean().abs() < 2.5  # 500 draws of a uniform one: a standard error of 0.52


def test_arm_rotation_turns_each_joint_with_its_own_probability():
    landmarks, is_valid = stack_landmarks(
        [np.random.default_rng(0).random((1, 54, 2), dtype=np.float32)] * 4000
    )
    settings = settings_with(geometric=1, shear=0, squeeze=0, rotation_degrees=0)

    after, _ = varied(landmarks, is_valid, settings)

    # An arm's elbow moves iff its shoulder turned: a quarter of the clips, of those 0.3.
    elbow_moved = (after != landmarks).any(-1)[:, 0, [skeleton.LEFT_ELBOW, skeleton.RIGHT_ELBOW]]
    wrist_moved = (after != landmarks).any(-1)[:, 0, [skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST]]
    np.testing.assert_allclose(elbow_moved.float().mean(0), 0.25 * 0.3, atol=0.017)
    np.testing.assert_allclose(wrist_moved.float().mean(0), 0.25 * 0.51, atol=0.021)
    both = (elbow_moved[:, 0] & elbow_moved[:, 1]).float().mean().item()
    assert both == pytest.approx(0.25 * 0.09, abs=0.01)


def test_no_missing_landmark_is_moved_and_none_gets_lost():
    landmarks, is_valid = many_clips(60)

    after, _ = varied(landmarks, is_valid, settings_with(geometric=1))

    assert torch.equal(after.isnan(), landmarks.isnan())


def test_a_share_of_the_clips_is_mirrored():
    landmarks, is_valid = many_clips(1000, num_frames=1)

    after, _ = varied(landmarks, is_valid, settings_with(mirror=0.3))

    mirrored = torch.from_numpy(mirror_landmarks(landmarks.numpy()))
    is_mirrored = is_changed(landmarks, after)
    assert not is_changed(after, mirrored)[is_mirrored].any()
    assert is_mirrored.float().mean().item() == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("length", [1, 2, 25, 60])
def test_a_change_of_speed_picks_frames_in_order_within_its_range(length):
    clip = np.broadcast_to(np.arange(length, dtype=np.float32)[:, None, None], (length, 54, 2))
    landmarks, is_valid = stack_landmarks([clip] * 300)

    after, valid = change_speed(landmarks, is_valid, random_keys(300), 1.25, MAX_FRAMES)

    counts = valid.sum(1)
    assert counts.min() == max(1, round(length / 1.25))
    assert counts.max() == min(MAX_FRAMES, round(length * 1.25))
    assert torch.equal(after.isnan().all(-1).all(-1), ~valid)
    steps = after[:, :, 0, 0].diff(dim=1)
    assert (steps[valid[:, 1:]] >= 0).all()
    if length > 2:
        last = after[torch.arange(300), counts - 1, 0, 0]
        assert (last == length - 1).all()


def test_a_change_of_speed_is_as_often_slower_as_faster():
    landmarks, is_valid = many_clips(1, num_frames=40)
    landmarks, is_valid = landmarks.expand(1000, -1, -1, -1), is_valid.expand(1000, -1)

    _, valid = change_speed(landmarks, is_valid, random_keys(1000), 2.0, 100)

    counts = valid.sum(1)
    slower, faster = (counts > 40).float().mean().item(), (counts < 40).float().mean().item()
    assert slower == pytest.approx(0.5, abs=0.06)
    assert faster == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", ["frame_dropout", "joint_dropout", "hand_dropout"])
def test_a_frame_that_lost_its_landmarks_is_still_a_frame(name):
    landmarks, is_valid = many_clips(20)

    after, valid = varied(landmarks, is_valid, settings_with(**{name: 0.5}))

    assert torch.equal(valid, is_valid)
    assert after.isnan().sum() > landmarks.isnan().sum()


def test_the_arguments_are_not_written_to():
    landmarks, is_valid = many_clips(20)
    before, valid_before = landmarks.clone(), is_valid.clone()

    after, _ = varied(landmarks, is_valid, EVERYTHING)
    add_noise(after, random_keys(20), 0.1)

    assert torch.equal(landmarks.nan_to_num(9), before.nan_to_num(9))
    assert torch.equal(is_valid, valid_before)


def test_noise_has_its_size_and_is_only_on_present_landmarks():
    prepared, _ = many_clips(50, num_frames=40)

    noise = add_noise(prepared, random_keys(50), 0.25) - prepared

    assert torch.equal(noise.isnan(), prepared.isnan())
    # About 173,000 draws: a standard error of 0.0004.
    assert noise[~noise.isnan()].std().item() == pytest.approx(0.25, abs=0.002)


def test_x_and_y_and_neighbouring_landmarks_get_unrelated_noise():
    noise = add_noise(torch.zeros(20, 50, 54, 2), random_keys(20), 1.0)

    between_axes = torch.corrcoef(noise.flatten(0, 2).T)[0, 1]
    between_landmarks = torch.corrcoef(noise[..., 0].flatten(0, 1).T) - torch.eye(54)
    between_frames = (noise[:, 1:] * noise[:, :-1]).mean()
    assert between_axes.abs() < 0.018
    assert between_landmarks.abs().max() < 0.16
    assert between_frames.abs() < 0.013
