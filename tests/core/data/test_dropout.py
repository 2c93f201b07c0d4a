import numpy as np
import pytest
import torch

from slrctl.core import skeleton
from slrctl.core.data.augment import drop_landmarks
from slrctl.settings import AugmentSettings

KEYS = np.random.default_rng(0).integers(0, 2**63, 400).astype(np.uint64)


def full_clips(num_clips: int = 400, num_frames: int = 20) -> torch.Tensor:
    return torch.rand(num_clips, num_frames, 54, 2, generator=torch.Generator().manual_seed(1))


def test_frame_dropout_loses_whole_frames_at_its_rate():
    dropped = drop_landmarks(full_clips(), KEYS, AugmentSettings(frame_dropout=0.2))

    lost = dropped.isnan().flatten(2)
    assert torch.equal(lost.any(-1), lost.all(-1))
    # 8000 frames: a standard error of 0.0045.
    assert lost.all(-1).float().mean().item() == pytest.approx(0.2, abs=0.018)


def test_joint_dropout_loses_single_landmarks_at_its_rate():
    dropped = drop_landmarks(full_clips(), KEYS, AugmentSettings(joint_dropout=0.1))

    lost = dropped.isnan()
    assert torch.equal(lost[..., 0], lost[..., 1])
    # 432,000 landmarks: a standard error of 0.0005, of each landmark's own rate 0.0034.
    assert lost.float().mean().item() == pytest.approx(0.1, abs=0.002)
    per_landmark = lost[..., 0].float().mean((0, 1))
    np.testing.assert_allclose(per_landmark, 0.1, atol=0.017)


def test_hand_dropout_loses_one_hand_of_a_clip_either_as_often():
    dropped = drop_landmarks(full_clips(), KEYS, AugmentSettings(hand_dropout=0.5))

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

    dropped = drop_landmarks(landmarks, KEYS, AugmentSettings.model_validate({name: 0.9}))

    assert torch.equal(dropped.nan_to_num(9), landmarks.nan_to_num(9))


def test_a_clip_that_would_lose_everything_to_one_kind_still_loses_to_another():
    landmarks = full_clips(num_frames=1)
    settings = AugmentSettings(frame_dropout=0.999, joint_dropout=0.5)

    dropped = drop_landmarks(landmarks, KEYS, settings)

    kept = (~dropped.isnan().any(-1)).flatten(1)
    assert kept.any(1).all()
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_nothing_is_touched_where_all_kinds_are_off():
    landmarks = full_clips()

    assert drop_landmarks(landmarks, KEYS, AugmentSettings()) is landmarks
