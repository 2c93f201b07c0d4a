"""Mirrored signing: the dominant hand is found, hands at the edge rest, one canonical form."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from clips import whole_batches
from numpy.testing import assert_allclose, assert_array_equal

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.mirror import (
    EDGE,
    STANDING_TRAVEL,
    USUAL_SHOULDERS,
    drop_edge_hands,
    hand_activity,
    is_inside,
    lead_with_right,
    mirror_landmarks,
    original_id,
)
from slrctl.core.data.prepare import prepare_clip
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.core.data.splits import load_splits, with_mirrored_copies
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.errors import DataError
from slrctl.layers import RECIPES
from slrctl.settings import PrepareSettings, Settings

LEFT, RIGHT = skeleton.LEFT_HAND, skeleton.RIGHT_HAND


def random_clip(num_frames: int, seed: int = 0) -> np.ndarray:
    """Hands that wander, in gaps, beside a body that stands still."""
    rng = np.random.default_rng(seed)
    landmarks = rng.random((num_frames, 54, 2))
    landmarks[:, :12] = landmarks[:1, :12]
    landmarks[rng.random(num_frames) < 0.1, skeleton.NUM_BODY :, 1] += 0.46  # at the lower edge
    landmarks[rng.random((num_frames, 54)) < 0.2] = np.nan
    for hand in (LEFT, RIGHT):
        landmarks[rng.random(num_frames) < 0.3, hand] = np.nan
    return landmarks.astype(np.float32)


def still_clip(num_frames: int = 20, **hands: tuple[float, float]) -> np.ndarray:
    """Nothing moves; shoulders a quarter of the image's height apart."""
    landmarks = np.full((num_frames, 54, 2), np.nan, np.float32)
    landmarks[:, skeleton.RIGHT_SHOULDER] = (0.375, 0.5)
    landmarks[:, skeleton.LEFT_SHOULDER] = (0.625, 0.5)
    for name, place in hands.items():
        landmarks[:, LEFT if name == "left" else RIGHT] = place
    return landmarks


def clip_of(landmarks: np.ndarray, aspect: float = 1.0) -> Clip:
    return Clip("one", "a", landmarks, aspect=aspect)


# --- activity -----------------------------------------------------------------------------------


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

    expected = [plain_activity(landmarks, hand, aspect) for hand in (LEFT, RIGHT)]
    assert activity == pytest.approx(expected, rel=1e-9)


def test_a_steady_move_counts_in_shoulder_distances_and_by_its_share_of_the_frames():
    landmarks = still_clip(20)
    # 10 of 20 frames, 0.05 apart: 8 medians lie 7 steps of 0.05 / 0.25 apart.
    landmarks[:10, LEFT] = 0.3
    landmarks[:10, LEFT, 0] += 0.05 * np.arange(10, dtype=np.float32)[:, None]

    left, right = hand_activity(landmarks)

    assert left == pytest.approx(0.5 * (7 * 0.2 + STANDING_TRAVEL), rel=1e-5)
    assert right == 0


# --- hands at the edge --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((0.06, 0.94), True),
        ((0.04, 0.5), False),
        ((0.96, 0.5), False),
        ((0.5, 0.04), False),
        ((0.5, 1.3), False),
        ((np.nan, np.nan), False),
    ],
)
def test_a_hand_is_inside_where_its_centre_keeps_away_from_every_side(centre, expected):
    assert is_inside(np.array([[centre, (0.5, 0.5)]])).tolist() == [[expected, True]]


def test_a_hand_is_dropped_only_in_the_frames_that_have_it_at_the_edge():
    landmarks = still_clip(6, left=(0.5, 0.4), right=(0.4, 0.4))
    landmarks[2:4, LEFT, 1] = 0.99
    before = landmarks.copy()

    kept = drop_edge_hands(clip_of(landmarks)).landmarks

    assert np.isnan(kept[2:4, LEFT]).all()
    kept[2:4, LEFT] = before[2:4, LEFT]
    assert_array_equal(kept, before)
    assert_array_equal(landmarks, before)


# --- the canonical form -------------------------------------------------------------------------


def test_the_mirror_swaps_the_hands_and_flips_x():
    landmarks = random_clip(6)
    before = landmarks.copy()

    mirrored = mirror_landmarks(landmarks)

    assert_array_equal(landmarks, before)
    assert_array_equal(mirrored[:, LEFT, 0], 1 - landmarks[:, RIGHT, 0])
    assert_array_equal(mirrored[:, LEFT, 1], landmarks[:, RIGHT, 1])
    assert_array_equal(mirrored[:, skeleton.NOSE, 0], 1 - landmarks[:, skeleton.NOSE, 0])
    assert_allclose(mirror_landmarks(mirrored), landmarks, atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_a_clip_and_its_mirror_image_have_one_canonical_form(seed):
    landmarks = random_clip(25, seed)

    canonical = lead_with_right(clip_of(landmarks, 1.5)).landmarks
    of_mirror_image = lead_with_right(clip_of(mirror_landmarks(landmarks), 1.5)).landmarks

    assert_allclose(of_mirror_image, canonical, atol=1e-6)
    left, right = hand_activity(canonical, 1.5)
    assert right > left


@pytest.mark.parametrize(
    "landmarks",
    [still_clip(), still_clip(left=(0.5, 0.5), right=(0.5, 0.5)), still_clip(right=(0.4, 0.4))],
    ids=["no hand", "a tie", "the right one"],
)
def test_where_the_left_hand_does_no_more_a_clip_stays_as_it_is(landmarks):
    clip = clip_of(landmarks)

    assert lead_with_right(clip) is clip


@pytest.fixture(scope="module")
def synthetic():
    """Signs of every kind by left- and right-handed signers."""
    return synthesise(
        SynthesisParameters(num_train_signers=4, num_val_signers=0, num_test_signers=0,
                            repetitions=2, num_sessions=1)
    )  # fmt: skip


def test_signs_with_one_dominant_hand_are_mirrored_just_where_it_is_the_left(synthetic):
    led = [c for c in synthetic.dataset if synthetic.truth[c.clip_id].kind in ("one", "base")]

    is_mirrored = [lead_with_right(clip) is not clip for clip in led]

    is_left_handed = [synthetic.truth[clip.clip_id].dominant_hand == "left" for clip in led]
    assert 0 < sum(is_left_handed) < len(led)
    assert is_mirrored == is_left_handed


def test_real_signs_of_one_hand_come_out_with_that_hand_on_the_right(shared_data):
    clips = load_dataset(shared_data / "csv" / "ksl_train.csv")
    has_hand = [[not np.isnan(c.landmarks[:, hand]).all() for hand in (LEFT, RIGHT)] for c in clips]
    canonical = [lead_with_right(c) for c, (left, right) in zip(clips, has_hand, strict=True)
                 if left != right]  # fmt: skip

    assert len(canonical) > 20
    assert all(np.isnan(clip.landmarks[:, LEFT]).all() for clip in canonical)


def test_prepared_as_right_a_clip_and_its_mirror_image_are_one():
    landmarks, settings = random_clip(25, seed=3), PrepareSettings(dominant_hand="right")

    prepared = prepare_clip(landmarks, settings, aspect=1.5)

    assert_allclose(
        prepare_clip(mirror_landmarks(landmarks), settings, aspect=1.5), prepared, atol=1e-3
    )


def streams_by_clip(batches) -> dict[str, tuple[torch.Tensor, ...]]:
    rows = {}
    for batch in batches:
        for row, clip_id in enumerate(batch.clip_ids):
            length = int(batch.is_valid[row].sum())
            streams = (batch.body, batch.left_hand, batch.right_hand)
            rows[clip_id] = tuple(stream[row, :length] for stream in streams)
    return rows


@pytest.mark.parametrize("prepare", [{"dominant_hand": "right"}, {"edge_hands": "drop"}])
def test_training_and_evaluation_see_clips_as_a_single_one_is_prepared(synthetic, prepare):
    clips = list(synthetic.dataset)[::5]
    clips[0].landmarks[::3, LEFT, 1] += 0.9  # at the lower edge
    dataset = SignDataset(tuple(clips), synthetic.dataset.classes, "some")
    settings = Settings.layered(
        RECIPES["siformer"], {"augment": {"enabled": False}, "prepare": prepare}
    )

    trained = streams_by_clip(whole_batches(dataset, settings, 0))
    evaluated = streams_by_clip(evaluation_batches(dataset, settings))

    expected = {}
    for clip in dataset:
        prepared = prepare_clip(clip.landmarks, settings.prepare, aspect=clip.aspect)
        prepared = torch.from_numpy(np.nan_to_num(prepared))
        expected[clip.clip_id] = tuple(
            prepared[:, stream].flatten(1) for stream in (skeleton.BODY, LEFT, RIGHT)
        )
    for rows in (trained, evaluated):
        torch.testing.assert_close(rows, expected, rtol=0, atol=0)


def test_mirrored_copies_stand_beside_their_clips_and_differ_only_in_the_mirror(tiny_dataset):
    both = with_mirrored_copies(tiny_dataset)

    assert both.clips[::2] == tiny_dataset.clips
    copies = both.clips[1::2]
    assert [c.clip_id for c in copies] == [f"{c.clip_id}#mirrored" for c in tiny_dataset]
    assert [original_id(c.clip_id) for c in both.clips] == [
        clip.clip_id for clip in tiny_dataset for _ in range(2)
    ]
    for clip, copy in zip(tiny_dataset, copies, strict=True):
        assert_array_equal(copy.landmarks, mirror_landmarks(clip.landmarks))
        same = replace(copy, clip_id=clip.clip_id, landmarks=clip.landmarks)
        assert vars(same) == vars(clip)


def test_a_set_that_holds_mirrored_copies_already_gets_no_second_ones(tiny_dataset):
    copied = with_mirrored_copies(tiny_dataset)

    with pytest.raises(DataError, match=r"leave data\.val_mirrored off"):
        with_mirrored_copies(copied)


def test_validation_is_mirrored_where_asked_and_nothing_else_is(tiny_dataset, tmp_path):
    path = tmp_path / "tiny.parquet"
    write_parquet(tiny_dataset, path)
    plain, mirrored = (
        load_splits(Settings.layered({"data": {"train": path, "val_mirrored": is_mirrored}}))
        for is_mirrored in (False, True)
    )

    assert plain.test is not None
    assert mirrored.test is not None
    assert mirrored.train.fingerprint() == plain.train.fingerprint()
    assert mirrored.test.fingerprint() == plain.test.fingerprint()
    assert len(mirrored.val) == 2 * len(plain.val)
    assert len(mirrored.notes) == len(plain.notes) + 1
