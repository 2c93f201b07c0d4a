"""The splits of a training: from files, a split column, named signers, or held out."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, load_dataset, ordered_classes
from slrctl.core.data.splits import Splits, choose_splits
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings


def clip(
    clip_id: str,
    gloss: str,
    signer: str | None = None,
    session: str | None = None,
    split: str | None = None,
) -> Clip:
    rng = np.random.default_rng(list(clip_id.encode()))
    landmarks = rng.random((2, 54, 2)).astype(np.float32)
    return Clip(clip_id, gloss, landmarks, signer, session, split)


def dataset_of(clips: Sequence[Clip], name: str = "signs") -> SignDataset:
    return SignDataset(tuple(clips), ordered_classes(c.gloss for c in clips), name, ("as read",))


def splits_of(
    train: Sequence[Clip],
    val: Sequence[Clip] | None = None,
    test: Sequence[Clip] | None = None,
    *,
    share: float = 0.2,
    seed: int = 1,
    **settings,
) -> Splits:
    others = [None if clips is None else dataset_of(clips, "other") for clips in (val, test)]
    data = DataSettings.model_validate({"val_share": share, **settings})
    return choose_splits(dataset_of(train), others[0], others[1], data, seed)


def ids(split: Sequence[Clip] | None) -> list[str]:
    return [] if split is None else [c.clip_id for c in split]


def all_ids(splits: Splits) -> tuple[list[str], list[str], list[str]]:
    return ids(splits.train), ids(splits.val), ids(splits.test)


# --- splits that are given ------------------------------------------------------------------------


def marked(splits: Sequence[str | None], prefix: str = "") -> list[Clip]:
    """Clips with these words in their split column; the gloss is always the same."""
    return [clip(f"{prefix}{n}", "a", split=split) for n, split in enumerate(splits)]


@pytest.mark.parametrize("word", ["val", "validation", "dev", "valid", " Val "])
def test_a_split_column_makes_the_splits(word):
    splits = splits_of(marked(["train", word, "test", "train"]))

    assert all_ids(splits) == (["0", "3"], ["1"], ["2"])


@pytest.mark.parametrize(
    ("train", "val", "test", "expected", "num_notes"),
    [
        (["train", "val", "test"], [None, None], [None], (["0"], ["v0", "v1"], ["t0"]), 3),
        ([None], ["train", "val", " Dev "], None, (["0"], ["v1", "v2"], []), 1),
        ([None], ["train", "train"], None, (["0"], ["v0", "v1"], []), 1),
    ],
    ids=["files before the column", "only the rows marked for it", "all rows if none is marked"],
)
def test_a_file_named_for_a_split_gives_it(train, val, test, expected, num_notes):
    test_clips = None if test is None else marked(test, "t")

    splits = splits_of(marked(train), marked(val, "v"), test_clips)

    assert all_ids(splits) == expected
    assert len(splits.notes) == num_notes
    assert (splits.train.notes, splits.val.notes) == (("as read",), ("as read",))


@pytest.mark.parametrize(
    ("column", "facts"),
    [
        (["train", None, "val"], "row 2 .*'1'.*column 'split'.*null"),
        (["train", "extra"], "row 2 .*'1'.*column 'split'.*'extra'"),
        (["val", "test", "test"], "1 val, 2 test"),
    ],
)
def test_a_split_column_that_cannot_be_followed_is_an_error(column, facts):
    with pytest.raises(DataError, match=f"signs: .*{facts}"):
        splits_of(marked(column))


# --- signers that are named -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"test_signers": ["ann"]}, {"train": {"ben", "cem", "dan"}, "test": {"ann"}}),
        ({"train_signers": ["ann"]}, {"train": {"ann"}, "test": {"ben", "cem", "dan"}}),
        ({"val_signers": ["ann"]}, {"train": {"ben", "cem", "dan"}, "val": {"ann"}}),
        (
            {"train_signers": ["ann"], "val_signers": ["ben"], "test_signers": ["cem"]},
            {"train": {"ann"}, "val": {"ben"}, "test": {"cem"}},
        ),
    ],
)
def test_signers_go_where_they_are_named_for_whatever_the_column_says(named, expected):
    clips = [clip(f"{s}{n}", "a", s, split="val") for s in ("ann", "ben", "cem", "dan")
             for n in range(4)]  # fmt: skip

    val = None if "val_signers" in named else [clip("v", "a", "vic")]
    splits = splits_of(clips, val, **named)

    found = {name: {c.signer for c in split} for name, split in splits.by_name.items()}
    assert found == {"val": {"vic"}} | expected


ANN_AND_BEN = [clip("0", "a", "ann"), clip("1", "a", "ben")]


@pytest.mark.parametrize(
    ("clips", "named", "error", "fact"),
    [
        (ANN_AND_BEN, {"test_signers": ["anna"]}, DataError, "anna.*'ann'"),
        (ANN_AND_BEN, {"test_signers": ["ann"], "val_signers": ["ann"]}, UsageError, "ann"),
        (ANN_AND_BEN, {"test_signers": ["ann", "ben"]}, UsageError, ""),
        (
            [clip("0", "a", "ann"), clip("1", "a")],
            {"test_signers": ["ann"]},
            DataError,
            "1 clip.*'1'",
        ),
    ],
    ids=["an unknown name", "a name twice", "nobody to train on", "a clip without a signer"],
)
def test_signers_that_make_no_splits_are_an_error_that_names_the_file(clips, named, error, fact):
    with pytest.raises(error, match=f"^signs: .*{fact}"):
        splits_of(clips, **named)


# --- classes and leaks ----------------------------------------------------------------------------


def test_all_splits_have_the_classes_of_training():
    train = [clip("0", "b", split="train"), clip("1", "a", split="train")]
    others = [clip("2", "a", split="val"), clip("3", "b", split="test")]

    splits = splits_of([*train, *others])

    assert {split.classes for split in splits.by_name.values()} == {("a", "b")}


AB = [clip("0", "a"), clip("1", "b")]
STRANGE = [clip("v2", "a"), clip("v3", "tree"), clip("v4", "tree")]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        (AB, STRANGE, None),
        (AB, [clip("v0", "a"), clip("v1", "b")], STRANGE),
        ([clip("0", "a", split="train"), clip("1", "tree", split="test")], AB[:1], None),
    ],
    ids=["val", "test", "test rows"],
)
def test_a_gloss_that_training_lacks_is_an_error(train, val, test):
    with pytest.raises(DataError, match="'tree'"):
        splits_of(train, val, test)


def test_a_gloss_that_training_lacks_is_left_out_on_demand():
    splits = splits_of(AB, STRANGE, skip_bad_clips=True)

    assert ids(splits.val) == ["v2"]
    assert "tree" in splits.notes[1]


@pytest.mark.parametrize(
    ("val", "fact"),
    [
        ([clip("v", "b")], "validation lacks 1 of the 2 glosses of training: 'a'"),
        ([AB[0], clip("v", "b")], "warning: 1 of 2 validation clips are in training too"),
    ],
)
def test_glosses_that_validation_lacks_and_shared_clips_are_noted(val, fact):
    assert splits_of(AB, val).notes[-1].startswith(fact)


# --- validation that is held out ------------------------------------------------------------------


def by_signer(
    sizes: dict[str, int], glosses: str = "abc", session: str | None = None
) -> list[Clip]:
    """Clips of each signer, glosses in turn."""
    return [
        clip(f"{signer}-{n}", glosses[n % len(glosses)], signer, session)
        for signer, size in sizes.items()
        for n in range(size)
    ]


def as_sessions(clips: list[Clip]) -> list[Clip]:
    return [clip(c.clip_id, c.gloss, session=c.signer) for c in clips]


@pytest.mark.parametrize("unit", ["signer", "session"])
def test_a_whole_signer_or_session_is_held_out(unit):
    clips = by_signer({"anna": 60, "ben": 50, "cleo": 24})

    splits = splits_of(as_sessions(clips) if unit == "session" else clips)

    assert {getattr(c, unit) for c in splits.val} == {"cleo"}
    assert {getattr(c, unit) for c in splits.train} == {"anna", "ben"}
    assert f"24 clips of {unit} 'cleo'" in splits.notes[0]


def test_few_signers_are_held_out_rather_than_many_small_ones():
    sizes = {"s1": 990, "s2": 988, "s3": 210, "s4": 160, "s5": 80, "s6": 120, "s7": 30}

    splits = splits_of(by_signer(sizes), share=0.15)

    assert {c.signer for c in splits.val} == {"s3", "s4"}


def test_a_signer_who_alone_shows_a_gloss_stays_in_training():
    clips = by_signer({"anna": 50, "ben": 50}) + by_signer({"cleo": 24}, "abcd")

    splits = splits_of(clips, share=0.25)  # of which cleo would be the better split

    assert {c.signer for c in splits.val} < {"anna", "ben"}
    assert splits.train.classes == ("a", "b", "c", "d")


def test_with_two_halves_for_signers_sessions_are_used():
    clips = by_signer({"anna": 50}, session="1") + by_signer({"ben": 40}, session="2")
    clips += [clip(f"more-{n}", "abc"[n % 3], signer="ben", session="3") for n in range(15)]

    assert {c.session for c in splits_of(clips, share=0.15).val} == {"3"}


@pytest.mark.parametrize(
    "clips",
    [
        by_signer({"anna": 100}),
        [clip(f"{n}", "abc"[n % 3]) for n in range(100)],
        [*by_signer({"anna": 60, "ben": 39}), clip("unknown", "a")],
        by_signer({"anna": 50, "ben": 50}),
        by_signer({"anna": 80}, "abc") + by_signer({"ben": 20}, "a"),
    ],
    ids=["one signer", "no signer", "a signer unknown", "signers too large", "glosses too few"],
)
def test_where_no_whole_signer_or_session_will_do_clips_are_drawn(clips):
    splits = splits_of(clips)

    assert len(splits.val) == 20
    assert "20 clips of 100 chosen at random, gloss by gloss" in splits.notes[0]


def test_every_gloss_has_its_share_of_the_clips_drawn():
    clips = [clip(f"{gloss}{n}", gloss) for gloss in "abcdefgh" for n in range(20)]

    counts = Counter(c.gloss for c in splits_of(clips, share=0.15).val)

    assert counts == dict.fromkeys("abcdefgh", 3)


@pytest.mark.parametrize("seed", range(4))
def test_no_gloss_loses_its_last_clip_nor_pays_for_others(seed):
    sizes = {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 40}
    clips = [clip(f"{gloss}{n}", gloss) for gloss, size in sizes.items() for n in range(size)]

    splits = splits_of(clips, share=0.5, seed=seed)

    assert splits.train.classes == tuple("abcdef")
    assert Counter(c.gloss for c in splits.val) == {"e": 1, "f": 20}


def test_drawn_clips_keep_their_order_and_follow_from_the_seed_and_the_ids_alone():
    clips = [clip(f"{gloss}{n}", gloss) for n in range(20) for gloss in "abc"]

    first, backwards, other = splits_of(clips), splits_of(clips[::-1]), splits_of(clips, seed=2)

    assert ids(backwards.val) == ids(first.val)[::-1]
    assert set(ids(other.val)) != set(ids(first.val))
    order = [clip_id for clip_id in ids(clips) if clip_id in ids(first.val)]
    assert ids(first.val) == order
    assert sorted(ids(first.train) + ids(first.val)) == sorted(ids(clips))


def test_at_least_one_clip_validates_and_without_one_to_spare_it_is_an_error():
    splits = splits_of([clip("0", "a"), clip("1", "a"), clip("2", "b")], share=0.01)

    assert [c.gloss for c in splits.val] == ["a"]
    with pytest.raises(DataError, match=r"2 clips .*--val"):
        splits_of(AB)


def test_test_rows_without_validation_rows_leave_something_to_hold_out():
    clips = [clip(f"{gloss}{n}", gloss, split="train") for gloss in "ab" for n in range(10)]

    splits = splits_of([*clips, clip("t", "a", split="test")])

    assert (len(splits.train), len(splits.val), ids(splits.test)) == (16, 4, ["t"])


@pytest.mark.parametrize(
    ("name", "sizes"), [("asl14", (1560, 330, 1273)), ("ksl13", (1430, 390, 650))]
)
def test_real_sets_are_split_as_their_column_says(shared_data, name, sizes):
    dataset = load_dataset(shared_data / f"{name}.parquet")

    splits = choose_splits(dataset, None, None, DataSettings(), seed=379)

    assert tuple(len(split) for split in splits.by_name.values()) == sizes
