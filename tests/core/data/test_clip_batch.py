import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core.clip import Clip, collate, target_indices

NAN = np.nan


def clip_of(clip_id: str, num_frames: int, gloss: str = "a", fill: float = 0.25) -> Clip:
    return Clip(clip_id, gloss, np.full((num_frames, 54, 2), fill, np.float32))


def test_streams_hold_the_flattened_coordinates_of_their_part():
    landmarks = np.arange(2 * 54 * 2, dtype=np.float32).reshape(2, 54, 2)

    batch = collate([Clip("one", "a", landmarks)])

    frame = torch.arange(108, dtype=torch.float32)
    assert_close(batch.body[0, 0], frame[:24])
    assert_close(batch.left_hand[0, 0], frame[24:66])
    assert_close(batch.right_hand[0, 0], frame[66:])
    assert_close(batch.right_hand[0, 1], frame[66:] + 108)


def test_padding_is_zero_and_not_valid():
    batch = collate([clip_of("short", 2), clip_of("long", 4)])

    assert batch.is_valid.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.body[0, 2:].eq(0).all()
    assert batch.left_is_present.tolist() == batch.is_valid.tolist()
    assert (len(batch), batch.target) == (2, None)


@pytest.mark.parametrize("axis", [0, 1, slice(None)], ids=["x missing", "y missing", "both"])
def test_a_missing_landmark_is_zero_in_both_coordinates(axis):
    clip = clip_of("one", 1)
    clip.landmarks[0, 20, axis] = NAN

    batch = collate([clip])

    assert batch.left_hand[0, 0, 16:18].tolist() == [0.0, 0.0]
    assert batch.left_hand[0, 0].count_nonzero() == 40


def test_a_hand_is_present_where_one_of_its_landmarks_is():
    clip = clip_of("one", 3, fill=0.0)
    clip.landmarks[0, 12:33] = NAN  # frame 0: no left hand
    clip.landmarks[1, 13:33] = NAN  # frame 1: its wrist alone
    clip.landmarks[:, 33:54] = NAN  # never a right hand

    batch = collate([clip])

    assert batch.left_is_present.tolist() == [[False, True, True]]
    assert batch.right_is_present.tolist() == [[False, False, False]]


def test_targets_are_places_among_the_classes():
    clips = [clip_of("1", 1, "b"), clip_of("2", 1, "a"), clip_of("3", 1, "b")]

    batch = collate(clips, ["a", "c", "b"])

    assert batch.target is not None
    assert batch.target.dtype == torch.int64
    assert batch.target.tolist() == [2, 0, 2]
    assert batch.clip_ids == ("1", "2", "3")


def test_a_gloss_outside_the_classes_is_named():
    with pytest.raises(ValueError, match="gloss 'z' is not among the 2 classes"):
        target_indices([clip_of("1", 1, "a"), clip_of("2", 1, "z")], ["a", "b"])


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_moving_a_batch_keeps_everything():
    batch = collate([clip_of("1", 2), clip_of("2", 3)], ["a"])

    assert vars(batch.to(torch.device("cpu"))) == vars(batch)
