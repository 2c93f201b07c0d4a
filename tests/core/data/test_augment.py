import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import stack_landmarks
from slrctl.core.data.augment import add_noise, augment, change_speed, mirror
from slrctl.settings import AugmentSettings

MAX_FRAMES = 60
OFF = {"geometric": 0.0}
EVERYTHING = AugmentSettings(
    geometric=1,
    mirror=0.5,
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


def many_clips(count: int, num_frames: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return stack_landmarks([random_clip(num_frames, seed) for seed in range(count)])


def settings_with(**changes: float) -> AugmentSettings:
    return AugmentSettings.model_validate({**OFF, **changes})


def varied(landmarks, is_valid, settings, seed=0, aspect=1.5):
    keys = random_keys(len(landmarks), seed)
    wide = np.full(len(landmarks), aspect)
    return augment(landmarks, is_valid, wide, keys, settings, MAX_FRAMES)


def is_changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (before.nan_to_num(9) != after.nan_to_num(9)).flatten(1).any(1)


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

    after, _ = varied(landmarks, is_valid, AugmentSettings(geometric=1, arm_probability=1))

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


@pytest.mark.parametrize(
    "changes",
    [{"geometric": 1.0}, {"mirror": 1.0}],
)
def test_no_missing_landmark_is_moved_and_none_gets_lost(changes):
    landmarks, is_valid = many_clips(60)

    after, _ = varied(landmarks, is_valid, settings_with(**changes))

    expected = landmarks.isnan()
    if "mirror" in changes:
        expected = expected[:, :, torch.from_numpy(skeleton.MIRROR)]
    assert torch.equal(after.isnan(), expected)


def test_the_mirror_swaps_the_hands_and_flips_x():
    landmarks = torch.rand(2, 3, 54, 2, generator=torch.Generator().manual_seed(0))

    mirrored = mirror(landmarks)

    assert_close(mirrored[:, :, skeleton.LEFT_HAND, 0], 1 - landmarks[:, :, skeleton.RIGHT_HAND, 0])
    assert_close(mirrored[:, :, skeleton.LEFT_HAND, 1], landmarks[:, :, skeleton.RIGHT_HAND, 1])
    assert_close(mirrored[:, :, skeleton.NOSE, 0], 1 - landmarks[:, :, skeleton.NOSE, 0])
    assert_close(mirror(mirrored), landmarks)


def test_the_mirror_befalls_its_share_of_the_clips():
    landmarks, is_valid = many_clips(1000, num_frames=1)

    after, _ = varied(landmarks, is_valid, settings_with(mirror=0.3))

    share = is_changed(landmarks, after).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.06)


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


def test_the_shortest_clip_keeps_its_frame_at_any_speed():
    landmarks, is_valid = many_clips(200, num_frames=1)

    after, valid = change_speed(landmarks, is_valid, random_keys(200), 4.0, MAX_FRAMES)

    assert valid[:, 0].all()
    assert torch.equal(after[:, :1].nan_to_num(9), landmarks.nan_to_num(9))


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


def test_noise_is_gaussian_and_only_on_present_landmarks():
    prepared, _ = many_clips(50, num_frames=40)

    noise = add_noise(prepared, random_keys(50), 0.25) - prepared

    assert torch.equal(noise.isnan(), prepared.isnan())
    values = noise[~noise.isnan()].double() / 0.25
    # About 173,000 draws; the bounds are four standard errors and more.
    assert values.mean().abs() < 0.01
    assert values.std().item() == pytest.approx(1.0, abs=0.008)
    assert (values**3).mean().abs() < 0.03
    assert (values**4).mean().item() == pytest.approx(3.0, abs=0.1)


def test_x_and_y_and_neighbouring_landmarks_get_unrelated_noise():
    noise = add_noise(torch.zeros(20, 50, 54, 2), random_keys(20), 1.0)

    between_axes = torch.corrcoef(noise.flatten(0, 2).T)[0, 1]
    between_landmarks = torch.corrcoef(noise[..., 0].flatten(0, 1).T) - torch.eye(54)
    between_frames = (noise[:, 1:] * noise[:, :-1]).mean()
    assert between_axes.abs() < 0.018
    assert between_landmarks.abs().max() < 0.16
    assert between_frames.abs() < 0.013


def test_no_noise_hands_back_what_it_got():
    prepared, _ = many_clips(3)

    assert add_noise(prepared, random_keys(3), 0.0) is prepared
