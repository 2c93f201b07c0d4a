"""Mirrored signing: which hand leads is found, settled, and no matter to the canonical form."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from slrctl.core import skeleton
from slrctl.core.data import augment
from slrctl.core.data.batches import evaluation_batches, prepare_clips, training_batches
from slrctl.core.data.mirror import (
    EDGE,
    STANDING_TRAVEL,
    USUAL_SHOULDERS,
    hand_activity,
    lead_with_right,
    mirror_landmarks,
    original_id,
)
from slrctl.core.data.prepare import prepare_clip
from slrctl.core.data.splits import load_splits, with_mirrored_copies
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.errors import DataError
from slrctl.settings import PrepareSettings, Settings

RIGHT = PrepareSettings(dominant_hand="right")


def random_clip(num_frames: int, seed: int = 0) -> np.ndarray:
    """Hands that wander, in gaps, beside a body that stands still."""
    rng = np.random.default_rng(seed)
    landmarks = rng.random((num_frames, 54, 2))
    landmarks[:, :12] = landmarks[:1, :12]
    landmarks[rng.random(num_frames) < 0.1, skeleton.NUM_BODY :, 1] += 0.46  # at the lower edge
    landmarks[rng.random((num_frames, 54)) < 0.2] = np.nan
    for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND):
        landmarks[rng.random(num_frames) < 0.3, hand] = np.nan
    return landmarks.astype(np.float32)


def still_clip(num_frames: int = 20) -> np.ndarray:
    """Nothing moves; shoulders a quarter of the image's height apart; no hand."""
    landmarks = np.full((num_frames, 54, 2), np.nan, np.float32)
    landmarks[:, skeleton.RIGHT_SHOULDER] = (0.375, 0.5)
    landmarks[:, skeleton.LEFT_SHOULDER] = (0.625, 0.5)
    return landmarks


def plain_activity(landmarks: np.ndarray, hand: slice, aspect: float) -> float:
    """The measure, one number at a time."""
    distances = []
    for frame in landmarks.astype(float):
        (xr, yr), (xl, yl) = frame[skeleton.RIGHT_SHOULDER], frame[skeleton.LEFT_SHOULDER]
        distance = (((xl - xr) * aspect) ** 2 + (yl - yr) ** 2) ** 0.5
        if distance > 0:
            distances.append(distance)
    distances.sort()
    count = len(distances)
    unit = (distances[(count - 1) // 2] + distances[count // 2]) / 2 if count else USUAL_SHOULDERS

    centres = []
    for frame in landmarks.astype(float):
        seen = [(x, y) for x, y in frame[hand] if x == x and y == y]
        if seen:
            x, y = (sum(axis) / len(seen) for axis in zip(*seen, strict=True))
            if EDGE < x < 1 - EDGE and EDGE < y < 1 - EDGE:
                centres.append((x * aspect, y))
    smooth = [
        [sorted(axis)[1] for axis in zip(*centres[middle - 1 : middle + 2], strict=True)]
        for middle in range(1, len(centres) - 1)
    ]
    travel = 0.0
    for (x, y), (next_x, next_y) in pairwise(smooth):
        travel += ((next_x - x) ** 2 + (next_y - y) ** 2) ** 0.5
    if not centres:
        return 0.0
    return len(centres) / len(landmarks) * (travel / unit + STANDING_TRAVEL)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("aspect", [1.0, 16 / 9])
def test_activity_is_that_of_a_plain_loop(num_frames, aspect):
    landmarks = random_clip(num_frames, seed=num_frames)

    activity = hand_activity(landmarks, aspect)

    expected = [
        plain_activity(landmarks, hand, aspect)
        for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND)
    ]
    assert activity == pytest.approx(expected, rel=1e-9)


def test_a_steady_move_counts_in_shoulder_distances_and_by_the_share_of_frames_that_show_it():
    landmarks = still_clip(20)
    # 10 of 20 frames, 0.05 apart: 8 medians lie 7 steps of 0.05 / 0.25 apart.
    landmarks[:10, skeleton.LEFT_HAND] = 0.3
    landmarks[:10, skeleton.LEFT_HAND, 0] += 0.05 * np.arange(10, dtype=np.float32)[:, None]

    left, right = hand_activity(landmarks)

    assert left == pytest.approx(0.5 * (7 * 0.2 + STANDING_TRAVEL), rel=1e-5)
    assert right == 0


def test_a_detection_far_off_in_one_frame_moves_nothing():
    landmarks = still_clip()
    landmarks[:, skeleton.LEFT_HAND] = 0.4
    landmarks[7, skeleton.LEFT_HAND] = 0.9

    assert hand_activity(landmarks)[0] == pytest.approx(STANDING_TRAVEL)


@pytest.mark.parametrize("place", [(0.5, 1.02), (0.5, 0.97), (-0.1, 0.5), (0.97, 0.5), (0.5, 0.0)])
def test_a_hand_at_the_edge_of_the_image_rests_however_it_jumps(place):
    landmarks = still_clip()
    landmarks[:, skeleton.LEFT_HAND] = place
    landmarks[::2, skeleton.LEFT_HAND] += np.array((0.02, 0.02), np.float32)
    landmarks[:, skeleton.RIGHT_HAND] = 0.4

    assert hand_activity(landmarks) == (0.0, pytest.approx(STANDING_TRAVEL))


def test_without_a_hand_nothing_is_active():
    assert hand_activity(still_clip()) == (0.0, 0.0)


def test_a_mirror_image_has_the_activities_swapped():
    landmarks = random_clip(30)

    left, right = hand_activity(landmarks, 4 / 3)

    assert hand_activity(mirror_landmarks(landmarks), 4 / 3) == pytest.approx((right, left))


@pytest.mark.parametrize("seed", range(20))
def test_a_clip_and_its_mirror_image_have_one_canonical_form(seed):
    landmarks = random_clip(25, seed)

    canonical = lead_with_right(landmarks, 1.5)

    assert_allclose(lead_with_right(mirror_landmarks(landmarks), 1.5), canonical, atol=1e-6)
    left, right = hand_activity(canonical, 1.5)
    assert right > left


@pytest.mark.parametrize("with_hands", [False, True], ids=["no hand", "a tie"])
def test_where_no_hand_does_more_a_clip_stays_as_signed(with_hands):
    landmarks = still_clip()
    if with_hands:
        landmarks[:, skeleton.NUM_BODY :] = 0.5

    assert lead_with_right(landmarks) is landmarks


def test_a_clip_that_the_right_hand_leads_is_handed_back_itself():
    landmarks = still_clip()
    landmarks[:, skeleton.RIGHT_HAND] = 0.4

    assert lead_with_right(landmarks) is landmarks
    mirrored = lead_with_right(mirror_landmarks(landmarks))
    assert_array_equal(mirrored, mirror_landmarks(mirror_landmarks(landmarks)))


def test_mirroring_writes_nothing_to_its_argument_and_is_what_augmentation_does():
    landmarks = random_clip(6)
    before = landmarks.copy()

    mirrored = mirror_landmarks(landmarks)

    assert_array_equal(landmarks, before)
    assert_array_equal(mirrored, augment.mirror(torch.from_numpy(landmarks)[None])[0].numpy())


@pytest.fixture(scope="module")
def made():
    """Signs of every kind by left- and right-handed signers."""
    return synthesise(
        SynthesisParameters(num_train_signers=4, num_val_signers=0, num_test_signers=0,
                            repetitions=2, num_sessions=1)
    )  # fmt: skip


def test_made_signs_with_one_leading_hand_are_mirrored_just_where_the_left_leads(made):
    led = [clip for clip in made.dataset if made.truth[clip.clip_id].kind in ("one", "base")]

    is_mirrored = [
        lead_with_right(clip.landmarks, clip.aspect) is not clip.landmarks for clip in led
    ]

    is_left_handed = [made.truth[clip.clip_id].dominant_hand == "left" for clip in led]
    assert 0 < sum(is_left_handed) < len(led)
    assert is_mirrored == is_left_handed


def test_real_signs_of_one_hand_come_out_with_that_hand_on_the_right(shared_data):
    from slrctl.core.data.dataset import load_dataset

    clips = [
        clip for clip in load_dataset(shared_data / "csv" / "ksl_train.csv")
        if np.isnan(clip.landmarks[:, skeleton.LEFT_HAND]).all()
        != np.isnan(clip.landmarks[:, skeleton.RIGHT_HAND]).all()
    ]  # fmt: skip

    assert len(clips) > 20
    for clip in clips:
        canonical = lead_with_right(clip.landmarks, clip.aspect)
        assert np.isnan(canonical[:, skeleton.LEFT_HAND]).all()


def test_prepared_as_right_a_clip_and_its_mirror_image_are_one():
    landmarks = random_clip(25, seed=3)

    prepared = prepare_clip(landmarks, RIGHT, aspect=1.5)

    assert_allclose(
        prepare_clip(mirror_landmarks(landmarks), RIGHT, aspect=1.5), prepared, atol=1e-3
    )
    as_signed = prepare_clip(landmarks, PrepareSettings())
    assert_array_equal(prepare_clip(landmarks, PrepareSettings(), aspect=1.5), as_signed)


UNVARIED = {"augment": {"geometric": 0.0, "noise": 0.0}, "train": {"batch_size": 64}}


def streams_by_clip(batches) -> dict[str, tuple[torch.Tensor, ...]]:
    rows = {}
    for batch in batches:
        for row, clip_id in enumerate(batch.clip_ids):
            length = int(batch.is_valid[row].sum())
            parts = (batch.left_hand, batch.right_hand, batch.body)
            rows[clip_id] = tuple(part[row, :length] for part in parts)
    return rows


def test_training_and_evaluation_see_the_same_hand_leading(made):
    dataset = made.dataset.part(made.dataset.clips[::5])
    settings = Settings.layered(UNVARIED, {"prepare": {"dominant_hand": "right"}})

    trained = streams_by_clip(training_batches(dataset, settings, 0))
    evaluated = streams_by_clip(evaluation_batches(prepare_clips(dataset, settings), 64))

    assert trained.keys() == evaluated.keys()
    for clip in dataset:
        expected = torch.from_numpy(
            np.nan_to_num(prepare_clip(clip.landmarks, settings.prepare, aspect=clip.aspect))
        )
        for rows in (trained, evaluated):
            left, right, body = rows[clip.clip_id]
            assert torch.equal(left, expected[:, skeleton.LEFT_HAND].flatten(1))
            assert torch.equal(right, expected[:, skeleton.RIGHT_HAND].flatten(1))
            assert torch.equal(body, expected[:, skeleton.BODY].flatten(1))


def test_mirrored_copies_stand_beside_their_clips_under_the_same_gloss_and_signer(tiny_dataset):
    both = with_mirrored_copies(tiny_dataset)

    assert both.clips[::2] == tiny_dataset.clips
    assert len({clip.clip_id for clip in both}) == 2 * len(tiny_dataset)
    for clip, copy in zip(both.clips[::2], both.clips[1::2], strict=True):
        assert copy.clip_id == f"{clip.clip_id}#mirrored"
        assert original_id(copy.clip_id) == original_id(clip.clip_id) == clip.clip_id
        facts = ("gloss", "signer", "session", "split", "fps", "aspect")
        assert [getattr(copy, fact) for fact in facts] == [getattr(clip, fact) for fact in facts]
        assert_array_equal(copy.landmarks, mirror_landmarks(clip.landmarks))


def test_a_set_that_holds_mirrored_copies_already_gets_no_second_ones(tiny_dataset):
    copied = with_mirrored_copies(tiny_dataset)

    with pytest.raises(DataError, match=r"leave data\.val_mirrored off"):
        with_mirrored_copies(copied)


def test_validation_is_mirrored_where_asked_and_nothing_else_is():
    plain = load_splits(Settings())
    mirrored = load_splits(Settings.layered({"data": {"val_mirrored": True}}))

    assert plain.test is not None
    assert mirrored.test is not None
    assert mirrored.train.fingerprint() == plain.train.fingerprint()
    assert mirrored.test.fingerprint() == plain.test.fingerprint()
    assert len(mirrored.val) == 2 * len(plain.val)
    assert mirrored.notes[-1] == "validation: 144 clips, each beside its mirrored copy"
