"""Hand-made examples, and the invariances that the audit stands on."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from planted import mirrored as mirror_image
from planted import turned

from slrctl.core.clip import Clip
from slrctl.core.data.audit.duplicates import digest, exact_copies
from slrctl.core.data.audit.fingerprint import (
    FramedClips,
    describe,
    fingerprint,
    in_torso_frame,
    mirrored,
)
from slrctl.core.data.audit.matching import blend_unexplained, unexplained
from slrctl.core.data.audit.report import (
    audit_parts,
    fix,
    missing_classes,
    name_hints,
    shared_groups,
    with_own_ids,
)


def clip(name: str, seed: int, gloss: str = "a", frames: int = 12, **facts) -> Clip:
    """A body that stands and hands that wander smoothly."""
    rng = np.random.default_rng(seed)
    landmarks = np.tile(np.random.default_rng(0).random((54, 2)), (frames, 1, 1))
    landmarks[:, [6, 7]] = [[0.35, 0.5], [0.65, 0.5]]
    landmarks[:, 1] = [0.5, 0.5]
    landmarks[:, [0, 2, 3, 4, 5]] = [
        [0.5, 0.3],
        [0.47, 0.28],
        [0.53, 0.28],
        [0.45, 0.3],
        [0.55, 0.3],
    ]
    steps = rng.standard_normal((3, frames, 1, 2)).cumsum(1).cumsum(1) * 0.004
    for part, path in zip(([8, 9, 10, 11], slice(12, 33), slice(33, 54)), steps, strict=True):
        landmarks[:, part] += path
    return Clip(name, gloss, landmarks.astype(np.float32), **facts)


@pytest.fixture
def one() -> Clip:
    return clip("one", 1)


def framed(landmarks: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    return in_torso_frame(landmarks.astype(np.float32), aspect)


# --- frame and fingerprint ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + np.array([0.3, -0.2]),
        lambda x: x * 0.4,
        lambda x: x * [1.5, 1.0],
        lambda x: turned(x, 20),
        lambda x: x @ np.array([[1, 0.1], [0, 1]]),
    ],
    ids=["shift", "scale", "aspect", "turn", "shear"],
)
def test_the_torso_does_not_tell_where_the_camera_stood(one, change):
    assert_allclose(framed(change(one.landmarks)), framed(one.landmarks), atol=2e-5)


def test_the_aspect_of_the_image_drops_out(one):
    assert_allclose(framed(one.landmarks, 1.78), framed(one.landmarks), atol=2e-5)


def test_a_mirrored_clip_is_the_mirror_image_in_the_torso_s_frame(one):
    assert_allclose(framed(mirror_image(one.landmarks)), mirrored(framed(one.landmarks)), atol=2e-5)


def test_mirrored_twice_is_the_clip_itself(one):
    seen = framed(one.landmarks)

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


def test_a_clip_seen_in_twice_the_frames_has_nearly_the_same_description(one):
    seen = framed(one.landmarks)
    doubled = np.repeat(seen, 2, axis=0)

    far = np.linalg.norm(describe(framed(clip("other", 2).landmarks)) - describe(seen))

    assert np.linalg.norm(describe(doubled) - describe(seen)) < 0.2 * far


def test_the_fingerprint_of_a_mirror_image_is_the_other_s_mirrored_one(one):
    image = replace(one, landmarks=mirror_image(one.landmarks).astype(np.float32))
    prints = fingerprint(FramedClips([one, image, *(clip(f"{n}", n) for n in range(3, 9))]))

    assert_allclose(prints.plain[1], prints.mirrored[0], atol=1e-3)


# --- matching -----------------------------------------------------------------------------------


def test_nothing_of_a_clip_is_unexplained_by_itself(one):
    assert unexplained([framed(one.landmarks)], [framed(one.landmarks)])[0] < 1e-4


def test_most_of_a_clip_is_unexplained_by_another(one):
    assert unexplained([framed(one.landmarks)], [framed(clip("x", 9).landmarks)])[0] > 0.3


def test_the_order_of_a_pair_and_the_pairs_beside_it_hardly_matter(one):
    clips = [framed(clip(f"{n}", n, frames=8 + n).landmarks) for n in range(5)]
    first, second = clips[:-1], clips[1:]

    together = unexplained(first, second)

    alone = [unexplained([a], [b])[0] for a, b in zip(first, second, strict=True)]
    assert_allclose(together, alone, rtol=0.05)


def test_clips_that_show_different_landmarks_are_not_compared(one):
    left, right = one.landmarks.copy(), one.landmarks.copy()
    left[:, 33:], right[:, :33] = np.nan, np.nan
    right[:, :8] = one.landmarks[:, :8]

    assert unexplained([framed(left)], [framed(right)])[0] == np.inf


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_blend_is_explained_by_its_parents_and_by_no_others(share):
    parents = [clip(f"{n}", n).landmarks for n in (1, 2, 3)]
    made = ((1 - share) * parents[0] + share * parents[1]).astype(np.float32)

    found = blend_unexplained([made, made], [parents[0]] * 2, [parents[1], parents[2]])

    assert found[0] < 1e-3
    assert found[1] > 0.05


def test_a_copy_is_no_blend(one):
    other = clip("other", 2).landmarks

    assert blend_unexplained([one.landmarks], [one.landmarks], [other])[0] == np.inf


# --- exact copies, names ------------------------------------------------------------------------


def test_a_clip_is_the_same_whatever_it_is_called(one):
    assert digest(one) == digest(replace(one, clip_id="two", gloss="b", signer="s"))
    assert digest(one) != digest(replace(one, landmarks=np.nextafter(one.landmarks, 2)))


def test_the_bits_of_nan_and_of_zero_do_not_matter(one):
    first, second = one.landmarks.copy(), one.landmarks.copy()
    first[0, 0], second[0, 0] = np.nan, -np.float32(np.nan)
    first[1, 0], second[1, 0] = 0.0, -0.0

    assert digest(replace(one, landmarks=first)) == digest(replace(one, landmarks=second))


def test_each_copy_is_paired_with_one_of_every_other_part(one):
    clips = [one, one, one, one, clip("other", 2)]

    leaks = exact_copies(clips, np.array([0, 0, 1, 2, 1]))

    assert {(leak.first, leak.second) for leak in leaks} == {(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}


def test_copies_within_a_part_are_no_leak(one):
    assert exact_copies([one, one, clip("x", 3)], np.array([0, 0, 1])) == []


def test_shared_signers_and_sessions_are_counted_by_part():
    clips = [
        clip("0", 0, signer="ann", session="mon"),
        clip("1", 1, signer="ann", session="tue"),
        clip("2", 2, signer="ben", session="mon"),
        clip("3", 3, signer="ben", session="mon"),
    ]
    parts = ["train", "test", "train", "test"]

    signers = shared_groups(clips, parts, "signer")
    sessions = shared_groups(clips, parts, "session")

    assert [(g.name, g.counts) for g in signers] == [
        ("ann", {"train": 1, "test": 1}),
        ("ben", {"train": 1, "test": 1}),
    ]
    assert [g.name for g in sessions] == ["ben / mon"]  # ann's Monday is another session


def test_unknown_signers_are_not_one_person():
    assert shared_groups([clip("0", 0), clip("1", 1)], ["train", "test"], "signer") == []


def test_missing_classes_are_listed_by_part():
    clips = [clip("0", 0, "a"), clip("1", 1, "b"), clip("2", 2, "a")]

    assert missing_classes(clips, ["train", "train", "val"]) == {"val": ["b"]}


@pytest.mark.parametrize(
    ("made", "is_hint"),
    [
        ("abc_aug3", True),
        ("abc_mirror", True),
        ("abc-copy", True),
        ("abc_FLIPPED_0", True),
        ("abc_3", False),
        ("abcaug", False),
        ("xyz_aug1", False),
    ],
)
def test_an_id_may_say_what_a_clip_was_made_of(made, is_hint):
    hints = name_hints([clip("abc", 0), clip(made, 1)], ["train", "test"])

    assert bool(hints) == is_hint


# --- fixing -------------------------------------------------------------------------------------


def leaking_set() -> list[Clip]:
    """Ten clips of training, two of val, two of test; two copies in each of the latter."""
    clips = [clip(f"t{n}", n, split="train") for n in range(10)]
    copies = [("v0", 0, "val"), ("e1", 1, "test"), ("e2", 20, "test"), ("v3", 20, "val")]
    return clips + [clip(name, seed, split=part) for name, seed, part in copies]


def audit_of(clips):
    return audit_parts(clips, [c.split or "" for c in clips])


def test_dropping_leaves_the_test_set_as_it_is():
    fixed = fix(audit_of(leaking_set()), "drop")

    kept = {c.clip_id for c in fixed.clips}
    assert {"e1", "e2", "v0"} <= kept
    assert not {"t0", "t1", "v3"} & kept
    assert fixed.dropped == {"train": 2, "val": 1}


def test_moving_brings_copies_together_and_loses_nothing():
    clips = leaking_set()

    fixed = fix(audit_of(clips), "move")

    part_of = {c.clip_id: c.split for c in fixed.clips}
    assert len(fixed.clips) == len(clips)
    assert (part_of["v0"], part_of["e1"]) == ("train", "train")
    assert part_of["e2"] == part_of["v3"] == "val"


@pytest.mark.parametrize("way", ["drop", "move"])
def test_what_was_fixed_is_clean(way):
    fixed = fix(audit_of(leaking_set()), way)

    assert fixed.remaining.leaks == []
    assert audit_of(fixed.clips).leaks == []


def test_of_a_blend_the_made_clip_goes_wherever_it_is():
    clips = [clip(f"t{n}", n, split="train") for n in range(6)]
    blend = (clips[0].landmarks + clips[1].landmarks) / 2
    clips += [
        clip("e", 9, split="test"),
        replace(clips[0], clip_id="m", landmarks=blend, split="test"),
    ]

    fixed = fix(audit_of(clips), "drop")

    assert fixed.dropped == {"test": 1}
    assert "m" not in {c.clip_id for c in fixed.clips}


def test_clips_of_one_name_get_names_of_their_own(one):
    clips = [replace(one, split=part) for part in ("train", "test", "test")] + [clip("x", 3)]

    assert [c.clip_id for c in with_own_ids(clips)] == ["train/one", "test/one", "test/one-2", "x"]


def test_one_part_alone_cannot_be_audited(one):
    with pytest.raises(ValueError, match="compares parts"):
        audit_parts([one, one], ["train", "train"])
