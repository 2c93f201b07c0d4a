from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, load_dataset, ordered_classes
from slrctl.core.data.splits import Splits, choose_splits
from slrctl.errors import DataError


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


def by_signer(
    sizes: dict[str, int], glosses: str = "abc", session: str | None = None
) -> list[Clip]:
    """Clips of each signer, glosses in turn."""
    return [
        clip(f"{signer}-{n}", glosses[n % len(glosses)], signer, session)
        for signer, size in sizes.items()
        for n in range(size)
    ]


def split_off(clips: Sequence[Clip], *, share: float = 0.2, seed: int = 1) -> Splits:
    return choose_splits(dataset_of(clips), None, None, val_share=share, seed=seed)


def ids(part: Sequence[Clip] | None) -> list[str]:
    return [] if part is None else [c.clip_id for c in part]


# --- parts that are given -----------------------------------------------------------------------


def marked(splits: Sequence[str | None], prefix: str = "") -> list[Clip]:
    """Clips with these words in their split column; the gloss is always the same."""
    return [clip(f"{prefix}{n}", "a", split=split) for n, split in enumerate(splits)]


@pytest.mark.parametrize("word", ["val", "validation", "dev", "valid", " Val "])
def test_a_split_column_makes_the_parts(word):
    train = dataset_of(marked(["train", word, "test", "train"]))

    parts = choose_splits(train, None, None, val_share=0.2, seed=1)

    assert ids(parts.train) == ["0", "3"]
    assert ids(parts.val) == ["1"]
    assert ids(parts.test) == ["2"]
    assert parts.notes == ("split column of signs: 2 train, 1 val, 1 test",)


def test_files_given_override_the_split_column_of_the_training_file():
    train = dataset_of(marked(["train", "val", "test"]))
    val = dataset_of(marked([None, None], "v"), "more")
    test = dataset_of(marked([None], "t"), "last")

    parts = choose_splits(train, val, test, val_share=0.2, seed=1)

    assert (ids(parts.train), ids(parts.val), ids(parts.test)) == (["0"], ["v0", "v1"], ["t0"])
    assert parts.notes == (
        "split column of signs: 1 train, 1 val, 1 test",
        "validation: all 2 clips of more, instead of the 1 row the training file marks val",
        "test: all 1 clip of last, instead of the 1 row the training file marks test",
    )


def test_of_a_file_given_only_the_rows_marked_for_it_are_used():
    given = dataset_of(marked(["train", "val", "test", " Dev "], "v"), "more")

    parts = choose_splits(dataset_of(marked([None])), given, given, val_share=0.2, seed=1)

    assert ids(parts.val) == ["v1", "v3"]
    assert ids(parts.test) == ["v2"]
    assert parts.notes == (
        "validation: 2 clips of more, the rows its split column marks val",
        "test: 1 clip of more, the rows its split column marks test",
    )


def test_of_a_file_without_such_rows_all_are_used():
    given = dataset_of(marked(["train", "train"], "v"), "more")

    parts = choose_splits(dataset_of(marked([None])), given, None, val_share=0.2, seed=1)

    assert ids(parts.val) == ["v0", "v1"]
    assert parts.test is None


def test_what_was_said_of_a_file_stays_with_its_part():
    given = dataset_of(marked([None], "v"))

    parts = choose_splits(dataset_of(marked([None])), given, None, val_share=0.2, seed=1)

    assert (parts.train.notes, parts.val.notes) == (("as read",), ("as read",))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", None, "val"], r"signs: row 2 \(clip '1'\), column 'split': found null, while"),
        (["train", "extra"], r"row 2 \(clip '1'\), column 'split': found 'extra'; expected train"),
        (["val", "test", "test"], "found 1 val, 2 test and no row for training; mark some rows"),
    ],
)
def test_a_split_column_that_cannot_be_followed_is_an_error(splits, message):
    with pytest.raises(DataError, match=message):
        choose_splits(dataset_of(marked(splits)), None, None, val_share=0.2, seed=1)


# --- classes ------------------------------------------------------------------------------------


def test_all_parts_have_the_classes_of_training():
    train = [clip("0", "b", split="train"), clip("1", "a", split="train")]
    others = [clip("2", "a", split="val"), clip("3", "b", split="test")]

    parts = choose_splits(dataset_of([*train, *others]), None, None, val_share=0.2, seed=1)

    assert parts.test is not None
    assert parts.train.classes == parts.val.classes == parts.test.classes == ("a", "b")


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_gloss_that_training_lacks_is_an_error(part):
    train = dataset_of([clip("0", "a"), clip("1", "b")])
    fine = dataset_of([clip("v0", "a"), clip("v1", "b")])
    other = dataset_of([clip("v2", "a"), clip("v3", "tree"), clip("v4", "tree")], "other")

    with pytest.raises(DataError, match=r"other: found 2 clips of 3 .* training lacks: 'tree'"):
        choose_splits(train, fine if part == "test" else other, other, val_share=0.2, seed=1)


def test_a_gloss_that_training_lacks_is_left_out_on_demand():
    train = dataset_of([clip("0", "a"), clip("1", "b")])
    val = dataset_of([clip("v2", "a"), clip("v3", "tree"), clip("v4", "b")])

    parts = choose_splits(train, val, None, val_share=0.2, seed=1, skip_bad_clips=True)

    assert ids(parts.val) == ["v2", "v4"]
    assert parts.val.notes == ("as read",)
    note = "left out 1 clip of 3 with a gloss that training lacks: 'tree'"
    assert note in parts.notes


def test_a_gloss_that_only_the_training_file_s_test_rows_show_is_an_error():
    clips = [clip("0", "a", split="train"), clip("1", "a", split="val"),
             clip("2", "tree", split="test")]  # fmt: skip

    with pytest.raises(DataError, match="training lacks: 'tree'"):
        choose_splits(dataset_of(clips), None, None, val_share=0.2, seed=1)


def test_glosses_that_validation_lacks_are_only_noted():
    train = dataset_of([clip("0", "a"), clip("1", "b"), clip("2", "c")])
    val = dataset_of([clip("v", "b")])

    parts = choose_splits(train, val, None, val_share=0.2, seed=1)

    assert parts.notes[-1] == "validation lacks 2 of the 3 glosses of training: 'a', 'c'"


def test_clips_that_are_in_training_too_bring_a_warning():
    train = dataset_of([clip("0", "a"), clip("1", "a")])
    val = dataset_of([clip("0", "a"), clip("2", "a")])

    parts = choose_splits(train, val, None, val_share=0.2, seed=1)

    assert parts.notes[-1].startswith("warning: 1 of 2 validation clips are in training too")


# --- validation that is split off ---------------------------------------------------------------


def test_a_whole_signer_is_split_off():
    parts = split_off(by_signer({"anna": 60, "ben": 50, "cleo": 24}))

    assert {c.signer for c in parts.val} == {"cleo"}
    assert {c.signer for c in parts.train} == {"anna", "ben"}
    assert parts.notes == (
        "validation: 24 clips of signer cleo split off from training (no validation set was given)",
    )


def test_few_signers_are_split_off_rather_than_many_small_ones():
    sizes = {"s1": 990, "s2": 988, "s3": 210, "s4": 160, "s5": 80, "s6": 120, "s7": 30}

    parts = split_off(by_signer(sizes), share=0.15)

    assert {c.signer for c in parts.val} == {"s3", "s4"}
    assert "of signers s3, s4 split off" in parts.notes[0]


def test_a_signer_who_alone_shows_a_gloss_stays_in_training():
    clips = by_signer({"anna": 50, "ben": 50}) + by_signer({"cleo": 24}, "abcd")

    parts = split_off(clips, share=0.25)  # of which cleo would be the better part

    assert {c.signer for c in parts.val} < {"anna", "ben"}
    assert parts.train.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize("num_signers", [3, 30])
def test_the_seed_decides_between_signers_and_the_order_of_the_file_does_not(num_signers):
    clips = by_signer({f"s{n}": 12 for n in range(num_signers)})
    choices = [{c.signer for c in split_off(clips, seed=seed).val} for seed in range(12)]

    backwards = [{c.signer for c in split_off(clips[::-1], seed=seed).val} for seed in range(12)]

    assert backwards == choices
    assert len({frozenset(choice) for choice in choices}) > 1


def test_many_signers_fill_the_share():
    parts = split_off(by_signer({f"s{n}": 3 + n % 5 for n in range(40)}), share=0.2)

    assert 0.15 <= len(parts.val) / 198 <= 0.25
    assert not {c.signer for c in parts.val} & {c.signer for c in parts.train}


def as_session(clips: list[Clip]) -> list[Clip]:
    return [clip(c.clip_id, c.gloss, session=c.signer) for c in clips]


def test_without_signers_a_whole_session_is_split_off():
    parts = split_off(as_session(by_signer({"monday": 50, "tuesday": 50, "friday": 20})))

    assert {c.session for c in parts.val} == {"friday"}
    assert "20 clips of session friday split off" in parts.notes[0]


def test_with_two_halves_for_signers_sessions_are_used():
    clips = by_signer({"anna": 50}, session="1") + by_signer({"ben": 40}, session="2")
    clips += [clip(f"more-{n}", "abc"[n % 3], signer="ben", session="3") for n in range(15)]

    parts = split_off(clips, share=0.15)

    assert {c.session for c in parts.val} == {"3"}


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
    parts = split_off(clips)

    assert len(parts.val) == 20
    assert parts.notes[0] == (
        "validation: 20 clips of 100 chosen at random, gloss by gloss, split off from training "
        "(no validation set was given)"
    )


def test_every_gloss_has_its_share_of_the_clips_drawn():
    clips = [clip(f"{gloss}{n}", gloss) for gloss in "abcdefgh" for n in range(20)]

    counts = Counter(c.gloss for c in split_off(clips, share=0.15).val)

    assert counts == dict.fromkeys("abcdefgh", 3)


@pytest.mark.parametrize("seed", range(4))
def test_no_gloss_loses_its_last_clip_nor_pays_for_others(seed):
    sizes = {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 40}
    clips = [clip(f"{gloss}{n}", gloss) for gloss, size in sizes.items() for n in range(size)]

    parts = split_off(clips, share=0.5, seed=seed)

    assert parts.train.classes == tuple("abcdef")
    assert Counter(c.gloss for c in parts.val) == {"e": 1, "f": 20}


def test_drawn_clips_follow_from_the_seed_and_the_ids_alone():
    clips = [clip(f"{gloss}{n}", gloss) for gloss in "abc" for n in range(20)]

    first = set(ids(split_off(clips, seed=1).val))

    assert set(ids(split_off(clips[::-1], seed=1).val)) == first
    assert set(ids(split_off(clips, seed=2).val)) != first


def test_parts_keep_the_order_of_the_file_and_share_no_clip():
    clips = [clip(f"{gloss}{n}", gloss) for n in range(20) for gloss in "abc"]

    parts = split_off(clips)

    order = {c.clip_id: n for n, c in enumerate(clips)}
    for part in (parts.train, parts.val):
        assert ids(part) == sorted(ids(part), key=order.__getitem__)
    assert sorted(ids(parts.train) + ids(parts.val)) == sorted(order)


def test_at_least_one_clip_validates():
    parts = split_off([clip("0", "a"), clip("1", "a"), clip("2", "b")], share=0.01)

    assert len(parts.val) == 1
    assert parts.val[0].gloss == "a"


def test_nothing_to_spare_is_an_error():
    with pytest.raises(DataError, match=r"found 2 clips and no gloss with two; .* with --val"):
        split_off([clip("0", "a"), clip("1", "b")])


def test_test_rows_without_validation_rows_leave_something_to_split_off():
    clips = [clip(f"{gloss}{n}", gloss, split="train") for gloss in "ab" for n in range(10)]
    clips += [clip("t", "a", split="test")]

    parts = split_off(clips)

    assert (len(parts.train), len(parts.val), ids(parts.test)) == (16, 4, ["t"])


@pytest.mark.parametrize(
    ("name", "sizes"), [("asl14", (1560, 330, 1273)), ("ksl13", (1430, 390, 650))]
)
def test_real_sets_are_split_as_their_column_says(shared_data, name, sizes):
    parts = choose_splits(
        load_dataset(shared_data / f"{name}.parquet"), None, None, val_share=0.15, seed=379
    )

    assert parts.test is not None
    assert (len(parts.train), len(parts.val), len(parts.test)) == sizes
