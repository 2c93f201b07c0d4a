"""The torso's frame, fingerprints and exact copies: examples by hand and invariances."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from planted import CHANGES, turned, wandering
from planted import mirrored as mirror_image

from slrctl.core.clip import Clip
from slrctl.core.data.audit.copies import (
    COPY_THRESHOLD,
    digest,
    exact_copies,
    in_torso_frame,
    mirrored,
)
from slrctl.core.data.audit.leaks import audit_splits
from slrctl.core.data.audit.matching import unexplained
from slrctl.core.data.synthetic import SynthesisParameters, synthesise


@pytest.fixture
def one() -> Clip:
    return wandering(1)


def framed(landmarks: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    return in_torso_frame(landmarks.astype(np.float32), aspect)


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        (lambda x: x + np.array([0.3, -0.2]), 1.0),
        (lambda x: x * 0.4, 1.0),
        (lambda x: x * [1.5, 1.0], 1.0),
        (lambda x: turned(x, 20), 1.0),
        (lambda x: x @ np.array([[1, 0.1], [0, 1]]), 1.0),
        (lambda x: x, 1.78),
    ],
    ids=["shift", "scale", "stretch", "turn", "shear", "aspect"],
)
def test_the_torso_s_frame_is_independent_of_the_camera(one, change, aspect):
    assert_allclose(framed(change(one.landmarks), aspect), framed(one.landmarks), atol=2e-5)


def test_a_mirrored_clip_is_the_mirror_image_in_the_torso_s_frame(one):
    seen = framed(one.landmarks)

    assert_allclose(framed(mirror_image(one.landmarks)), mirrored(seen), atol=2e-5)
    assert (mirrored(mirrored(seen)) == seen).all()


def test_missing_landmarks_stay_missing_and_move_nothing(one):
    landmarks = one.landmarks.copy()
    landmarks[3:5, 12:33] = np.nan

    seen = framed(landmarks)

    assert (np.isnan(seen) == np.isnan(landmarks)).all()
    known = ~np.isnan(seen)
    assert_allclose(seen[known], framed(one.landmarks)[known], atol=1e-6)


@pytest.mark.parametrize("missing", [[6], [1, 6, 7], [0, 2, 3, 4, 5], list(range(12))])
def test_without_a_torso_place_and_scale_still_drop_out(one, missing):
    landmarks = one.landmarks.copy()
    landmarks[:, missing] = np.nan

    assert_allclose(framed(landmarks * 0.5 + 0.2), framed(landmarks), atol=1e-4, equal_nan=True)


def test_a_clip_is_the_same_whatever_it_is_called(one):
    assert digest(one) == digest(replace(one, clip_id="two", gloss="b", signer="s"))
    assert digest(one) != digest(replace(one, landmarks=np.nextafter(one.landmarks, 2)))


def test_the_bits_of_nan_and_of_zero_do_not_matter(one):
    first, second = one.landmarks.copy(), one.landmarks.copy()
    first[0, 0], second[0, 0] = np.nan, -np.float32(np.nan)
    first[1, 0], second[1, 0] = 0.0, -0.0

    assert digest(replace(one, landmarks=first)) == digest(replace(one, landmarks=second))


def test_each_copy_is_paired_with_one_of_every_other_split_and_none_of_its_own(one):
    clips = [one, one, one, one, wandering(2), wandering(2)]

    leaks = exact_copies(clips, np.array([0, 0, 1, 2, 1, 1]))

    assert {leak.rows for leak in leaks} == {(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}


def test_no_copy_escapes_that_comparing_all_with_all_would_find():
    parameters = SynthesisParameters(num_glosses=2, num_train_signers=3, num_val_signers=0,
                                     num_test_signers=0)  # fmt: skip
    takes = list(synthesise(parameters, seed=9).dataset)
    rng = np.random.default_rng(3)
    changes = ["jittered", "faster", "mirrored", "several at once", "frames lost", "ends cut"]
    copies = [
        replace(clip, landmarks=CHANGES[change](clip.landmarks, rng).astype(np.float32))
        for clip, change in zip(takes[::6], changes, strict=True)
    ]
    clips = [*takes, *(replace(copy, split="test") for copy in copies)]
    shown = [in_torso_frame(clip.landmarks, clip.aspect) for clip in clips]
    pairs = list(product(range(len(takes)), range(len(takes), len(clips))))

    leaks = audit_splits(clips).leaks

    first, second = ([shown[row] for row in rows] for rows in zip(*pairs, strict=True))
    in_mirror = unexplained([mirrored(clip) for clip in first], second)
    close = np.minimum(unexplained(first, second), in_mirror) < COPY_THRESHOLD
    expected = {pair for pair, is_close in zip(pairs, close, strict=True) if is_close}
    assert {leak.rows for leak in leaks} == expected
    assert expected == {(6 * n, len(takes) + n) for n in range(len(copies))}
