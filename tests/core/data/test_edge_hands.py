"""Hands at the edge of the image are told from hands that sign."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.batches import evaluation_batches, prepare_clips, training_batches
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.mirror import drop_edge_hands, hand_centres, is_shown
from slrctl.core.data.prepare import prepare_clip
from slrctl.settings import Settings

LEFT, RIGHT = skeleton.LEFT_HAND, skeleton.RIGHT_HAND


def random_clip(num_frames: int) -> np.ndarray:
    """Everything near the middle of the image, with gaps."""
    rng = np.random.default_rng(num_frames)
    landmarks = rng.uniform(0.4, 0.6, (num_frames, 54, 2))
    landmarks[rng.random((num_frames, 54)) < 0.2] = np.nan
    landmarks[0, LEFT] = np.nan
    return landmarks.astype(np.float32)


def test_the_centre_of_a_hand_is_the_mean_of_what_is_seen_of_it():
    landmarks = random_clip(5)

    centres = hand_centres(landmarks)

    for frame in range(5):
        for side, hand in enumerate((LEFT, RIGHT)):
            seen = [point for point in landmarks[frame, hand] if not np.isnan(point).any()]
            expected = np.mean(seen, axis=0) if seen else [np.nan, np.nan]
            assert_allclose(centres[frame, side], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((0.5, 0.5), True),
        ((0.06, 0.94), True),
        ((0.04, 0.5), False),
        ((0.96, 0.5), False),
        ((0.5, 0.04), False),
        ((0.5, 0.96), False),
        ((0.5, 1.3), False),
        ((np.nan, np.nan), False),
    ],
)
def test_a_hand_is_shown_where_its_centre_keeps_away_from_every_side(centre, expected):
    assert is_shown(np.array([[centre, (0.5, 0.5)]])).tolist() == [[expected, True]]


def test_a_hand_is_dropped_only_in_the_frames_that_have_it_at_the_edge():
    landmarks = random_clip(6)
    landmarks[2:4, LEFT, 1] += 0.5  # 0.9 to 1.1: at the lower edge
    before = landmarks.copy()

    kept = drop_edge_hands(landmarks)

    assert np.isnan(kept[2:4, LEFT]).all()
    kept[2:4, LEFT] = before[2:4, LEFT]
    assert_array_equal(kept, before)
    assert_array_equal(landmarks, before)


@pytest.mark.parametrize("edge_hands", ["keep", "drop"])
def test_training_evaluation_and_single_clips_agree_on_edge_hands(edge_hands):
    landmarks = random_clip(8)
    landmarks[:3, RIGHT, 1] += 0.5
    clip = Clip("one", "a", landmarks)
    settings = Settings.layered(
        {
            "prepare": {"edge_hands": edge_hands},
            "augment": {"geometric": 0.0, "noise": 0.0},
        }
    )
    dataset = SignDataset((clip,), ("a",), "one")

    (trained,) = training_batches(dataset, settings, 0)
    (evaluated,) = evaluation_batches(prepare_clips(dataset, settings), 1)

    prepared = torch.from_numpy(np.nan_to_num(prepare_clip(landmarks, settings.prepare)))
    for batch in (trained, evaluated):
        assert_close(batch.right_hand[0], prepared[:, RIGHT].flatten(1), rtol=0, atol=0)
        assert batch.right_is_present[0, :3].any() == (edge_hands == "keep")
        assert batch.right_is_present[0, 3:].all()
