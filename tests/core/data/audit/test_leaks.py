"""Shared groups, missing glosses, telling ids, and sets without leaks."""

from dataclasses import replace

import pytest
from planted import wandering

from slrctl.core.clip import Clip
from slrctl.core.data.audit.leaks import (
    audit_splits,
    fix,
    missing_classes,
    name_hints,
    shared_groups,
    with_own_ids,
)


def test_shared_signers_and_sessions_are_counted_by_split():
    clips = [
        wandering(0, signer="ann", session="mon", split="train"),
        wandering(1, signer="ann", session="tue", split="test"),
        wandering(2, signer="ben", session="mon", split="train"),
        wandering(3, signer="ben", session="mon", split="test"),
        wandering(4, split="train"),
        wandering(5, split="test"),  # two who are unknown are not one person
    ]

    both = {"train": 1, "test": 1}
    assert shared_groups(clips, "signer") == {"ann": both, "ben": both}
    # Ann's Monday is another session.
    assert shared_groups(clips, "session") == {"ben / mon": both}


def test_missing_classes_are_listed_by_split():
    clips = [
        wandering(0, gloss="a", split="train"),
        wandering(1, gloss="b", split="train"),
        wandering(2, gloss="a", split="val"),
    ]

    assert missing_classes(clips) == {"val": ["b"]}


@pytest.mark.parametrize(
    ("clip_ids", "hints"),
    [
        (("abc_aug3", "abc_mirror", "abc-copy", "abc_FLIPPED_0"), [(n, 0) for n in range(1, 5)]),
        (("abc_3", "abcaug", "xyz_aug1"), []),
    ],
)
def test_an_id_may_say_that_a_clip_was_changed_from_another(clip_ids, hints):
    origin = wandering(0, clip_id="abc", split="train")
    others = [wandering(1, clip_id=clip_id, split="test") for clip_id in clip_ids]

    assert name_hints([origin, *others]) == hints


@pytest.fixture
def leaking() -> list[Clip]:
    """Ten clips of training, two of val, two of test; two copies in each of the latter."""
    clips = [wandering(n, clip_id=f"t{n}", split="train") for n in range(10)]
    copies = [("v0", 0, "val"), ("e1", 1, "test"), ("e2", 20, "test"), ("v3", 20, "val")]
    return clips + [wandering(seed, clip_id=name, split=split) for name, seed, split in copies]


def test_dropping_leaves_the_test_set_as_it_is(leaking):
    fixed = fix(audit_splits(leaking), "drop")

    assert {c.clip_id for c in leaking} - {c.clip_id for c in fixed.clips} == {"t0", "t1", "v3"}
    assert fixed.dropped == {"train": 2, "val": 1}
    assert fixed.remaining.leaks == audit_splits(fixed.clips).leaks == []


def test_moving_brings_copies_together_and_loses_nothing(leaking):
    fixed = fix(audit_splits(leaking), "move")

    splits = {c.clip_id: c.split for c in fixed.clips}
    assert len(fixed.clips) == len(leaking)
    assert (splits["v0"], splits["e1"]) == ("train", "train")
    assert splits["e2"] == splits["v3"] == "val"
    assert fixed.moved == {"val": 1, "test": 2}
    assert fixed.remaining.leaks == audit_splits(fixed.clips).leaks == []


def test_an_interpolated_clip_is_dropped_wherever_it_is():
    clips = [wandering(n, clip_id=f"t{n}", split="train") for n in range(6)]
    between = (clips[0].landmarks + clips[1].landmarks) / 2
    clips += [
        wandering(9, clip_id="e", split="test"),
        replace(clips[0], clip_id="between", landmarks=between, split="test"),
    ]

    fixed = fix(audit_splits(clips), "drop")

    assert fixed.dropped == {"test": 1}
    assert "between" not in {c.clip_id for c in fixed.clips}


def test_clips_of_one_name_get_names_of_their_own():
    one = wandering(1, clip_id="one")
    clips = [replace(one, split=split) for split in ("train", "test", "test")]

    named = with_own_ids([*clips, wandering(3, clip_id="x")])

    assert [c.clip_id for c in named] == ["train/one", "test/one", "test/one-2", "x"]


def test_one_split_alone_cannot_be_audited():
    with pytest.raises(ValueError, match="compares splits"):
        audit_splits([wandering(1, split="train"), wandering(2, split="train")])
