"""The audit's matching beside plain loops, scipy's solver and a comparison of all with all."""

from dataclasses import replace
from itertools import product

import numpy as np
import plain_audit
import pytest
from numpy.testing import assert_allclose
from planted import CHANGES, jittered, resampled, turned

from slrctl.core.clip import Clip
from slrctl.core.data.audit.alignment import Laid, pair_up
from slrctl.core.data.audit.duplicates import COPY_THRESHOLD
from slrctl.core.data.audit.fingerprint import in_torso_frame
from slrctl.core.data.audit.fingerprint import mirrored as mirrored_in_frame
from slrctl.core.data.audit.matching import _on_the_line, unexplained
from slrctl.core.data.audit.report import audit_parts
from slrctl.core.data.synthetic import SynthesisParameters, synthesise


@pytest.fixture(scope="module")
def takes() -> list[Clip]:
    """Eight takes of a sign by one person, and as many of another sign by two others."""
    parameters = SynthesisParameters(num_glosses=2, num_train_signers=3, num_val_signers=0,
                                     num_test_signers=0, repetitions=6, landmark_dropout=0.0,
                                     hand_dropout=0.0)  # fmt: skip
    return list(synthesise(parameters, seed=9).dataset)


@pytest.fixture(scope="module")
def whole_takes(takes) -> list[Clip]:
    """Those of the takes in which nothing is missing, which plain loops take for granted."""
    whole = [replace(clip, landmarks=clip.landmarks[:20]) for clip in takes]
    return [
        replace(clip, landmarks=np.where(np.isnan(clip.landmarks), 0.5, clip.landmarks))
        for clip in whole
    ]


def framed(landmarks: np.ndarray) -> np.ndarray:
    return in_torso_frame(landmarks.astype(np.float32), 1.0)


COPIES = {
    "jittered": lambda x, rng: jittered(x, 0.01, rng),
    "jittered more": lambda x, rng: jittered(x, 0.03, rng),
    "slower": lambda x, _: resampled(x, 1.3),
    "turned, slower and jittered": lambda x, rng: jittered(
        resampled(turned(x * 0.6, 10), 1.2), 0.01, rng
    ),
}


@pytest.mark.parametrize("change", COPIES)
def test_what_remains_is_measured_as_plain_loops_do(whole_takes, change):
    clip = framed(whole_takes[0].landmarks)
    copy = framed(COPIES[change](whole_takes[0].landmarks, np.random.default_rng(0)))
    pairs = pair_up([clip], [copy])
    even = np.linspace(0, len(copy) - 1, len(clip))
    there = resampled(copy, len(clip) / len(copy))[:, plain_audit.FIRST_MOVING :]

    found = _on_the_line(pairs, Laid(pairs.first, np.array([[0.0, 1.0]]), even[None]))

    rest = (pairs.first[0] - there).tolist()
    expected = plain_audit.measured(pairs.first[0].astype(float), rest)
    assert_allclose(found, [expected], rtol=1e-3)


@pytest.mark.parametrize("change", COPIES)
def test_the_line_and_the_map_are_about_as_good_as_scipy_s(whole_takes, change):
    clip = framed(whole_takes[0].landmarks)
    copy = framed(COPIES[change](whole_takes[0].landmarks, np.random.default_rng(0)))

    found = unexplained([copy], [clip])[0]

    expected = plain_audit.unexplained(copy.astype(float), clip.astype(float))
    assert found < 1.5 * expected + 1e-4
    assert found < COPY_THRESHOLD
    assert expected < COPY_THRESHOLD


def test_another_take_is_one_for_scipy_too(whole_takes):
    one, other = (framed(clip.landmarks) for clip in whole_takes[:2])

    assert unexplained([one], [other])[0] > COPY_THRESHOLD
    assert plain_audit.unexplained(one.astype(float), other.astype(float)) > COPY_THRESHOLD


def test_no_leak_escapes_that_comparing_all_with_all_would_find(takes):
    rng = np.random.default_rng(3)
    changes = ["jittered", "faster", "mirrored", "several at once", "frames lost", "ends cut"]
    copies = [
        replace(clip, landmarks=CHANGES[change](clip.landmarks, rng).astype(np.float32))
        for clip, change in zip(takes[::6], changes, strict=True)
    ]
    clips = [*takes, *copies]
    shown = [in_torso_frame(clip.landmarks, clip.aspect) for clip in clips]
    pairs = list(product(range(len(takes)), range(len(takes), len(clips))))

    leaks = audit_parts(clips, ["train"] * len(takes) + ["test"] * len(copies)).leaks

    first, second = ([shown[row] for row in rows] for rows in zip(*pairs, strict=True))
    plain = unexplained(first, second)
    seen_in_mirror = unexplained([mirrored_in_frame(clip) for clip in first], second)
    close = np.minimum(plain, seen_in_mirror) < COPY_THRESHOLD
    expected = {pair for pair, is_close in zip(pairs, close, strict=True) if is_close}
    assert {(leak.first, leak.second) for leak in leaks} == expected
    assert expected == {(6 * n, len(takes) + n) for n in range(len(copies))}
