"""Matching of clips beside plain loops and scipy's solver."""

import numpy as np
import plain_audit
import pytest
from numpy.testing import assert_allclose
from planted import jittered, resampled, turned, wandering

from slrctl.core.clip import Clip
from slrctl.core.data.audit.copies import COPY_THRESHOLD, in_torso_frame
from slrctl.core.data.audit.matching import (
    MOVING,
    blend_unexplained,
    unexplained,
    unexplained_on_line,
)
from slrctl.core.data.synthetic import SynthesisParameters, synthesise


def framed(landmarks: np.ndarray) -> np.ndarray:
    return in_torso_frame(landmarks.astype(np.float32), 1.0)


@pytest.fixture(scope="module")
def takes() -> list[np.ndarray]:
    """Two takes of a sign by one person, in which nothing is missing: plain loops expect it."""
    parameters = SynthesisParameters(num_glosses=2, num_train_signers=1, num_val_signers=0,
                                     num_test_signers=0, repetitions=2, landmark_dropout=0.0,
                                     hand_dropout=0.0)  # fmt: skip
    clips: list[Clip] = list(synthesise(parameters, seed=9).dataset)[:2]
    return [np.nan_to_num(clip.landmarks[:20], nan=0.5) for clip in clips]


COPIES = {
    "jittered": lambda x, rng: jittered(x, 0.01, rng),
    "jittered more": lambda x, rng: jittered(x, 0.03, rng),
    "slower": lambda x, _: resampled(x, 1.3),
    "turned, slower and jittered": lambda x, rng: jittered(
        resampled(turned(x * 0.6, 10), 1.2), 0.01, rng
    ),
}


@pytest.mark.parametrize("change", COPIES)
def test_the_remainder_is_measured_as_plain_loops_do(takes, change):
    clip = framed(takes[0])[:, MOVING]
    copy = framed(COPIES[change](takes[0], np.random.default_rng(0)))[:, MOVING]
    values = resampled(copy, len(clip) / len(copy)).astype(np.float32)

    found = unexplained_on_line(clip[None], values[None])

    expected = plain_audit.measured(clip.astype(float), (clip - values).tolist())
    assert_allclose(found, [expected], rtol=1e-3)


@pytest.mark.parametrize("change", COPIES)
def test_the_line_and_the_map_are_about_as_good_as_scipy_s(takes, change):
    clip = framed(takes[0])
    copy = framed(COPIES[change](takes[0], np.random.default_rng(0)))

    found = unexplained([copy], [clip])[0]

    expected = plain_audit.unexplained(copy.astype(float), clip.astype(float))
    assert found < 1.5 * expected + 1e-4
    assert max(found, expected) < COPY_THRESHOLD


def test_another_take_is_one_for_scipy_too(takes):
    one, other = map(framed, takes)

    assert unexplained([one], [other])[0] > COPY_THRESHOLD
    assert plain_audit.unexplained(one.astype(float), other.astype(float)) > COPY_THRESHOLD


def test_the_order_of_a_pair_and_the_pairs_beside_it_hardly_matter():
    clips = [framed(wandering(n, frames=8 + n).landmarks) for n in range(5)]
    first, second = clips[:-1], clips[1:]

    together = unexplained(first, second)

    alone = [unexplained([b], [a])[0] for a, b in zip(first, second, strict=True)]
    assert_allclose(together, alone, rtol=0.05)


def test_clips_that_show_different_landmarks_are_not_compared():
    whole = wandering(1).landmarks
    left, right = whole.copy(), whole.copy()
    left[:, 33:], right[:, :33] = np.nan, np.nan
    right[:, :8] = whole[:, :8]

    assert unexplained([framed(left)], [framed(right)])[0] == np.inf


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_blend_is_explained_by_its_parents_and_by_no_others(share):
    parents = [wandering(n).landmarks for n in (1, 2, 3)]
    between = ((1 - share) * parents[0] + share * parents[1]).astype(np.float32)

    found = blend_unexplained([between, between], [parents[0]] * 2, [parents[1], parents[2]])

    assert found[0] < 1e-3
    assert found[1] > 0.05


def test_a_copy_is_no_blend():
    one, other = wandering(1).landmarks, wandering(2).landmarks

    assert blend_unexplained([one], [one], [other])[0] == np.inf
