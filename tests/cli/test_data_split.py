"""`slrctl data split` as a user meets it."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from spoter_files import person

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import write_parquet


def made_clips() -> list[Clip]:
    """Eight people, two sessions each, four glosses, three clips of each: 192."""
    landmarks = person(1).astype("f4")
    return [
        Clip(f"{signer}-{gloss}-{take}", gloss, landmarks, signer, f"{signer}-{take % 2}")
        for signer in ("ann", "bob", "cem", "dan", "eva", "fay", "gus", "hal")
        for gloss in ("book", "drink", "eat", "go")
        for take in range(6)
    ]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "clips.parquet"
    write_parquet(made_clips(), path)
    return path


def members(clips, attribute: str) -> dict[str, set]:
    found = defaultdict(set)
    for clip in clips:
        found[clip.split].add(getattr(clip, attribute))
    return found


@pytest.mark.parametrize("unit", ["signer", "session"])
def test_groups_are_kept_whole_and_every_gloss_is_in_every_part(run, path, unit):
    result = run("data", "split", path, "--by", unit, "--output", "out.parquet")

    assert result.exit_code == 0, result.output
    clips = load_dataset("out.parquet")
    for clip, old in zip(clips, load_dataset(path), strict=True):
        assert (clip.clip_id, clip.gloss, clip.signer) == (old.clip_id, old.gloss, old.signer)
        assert_array_equal(clip.landmarks, old.landmarks)
    groups = members(clips, unit)
    assert set(groups) == {"train", "val", "test"}
    assert sum(len(names) for names in groups.values()) == len({getattr(c, unit) for c in clips})
    assert all(len(glosses) == 4 for glosses in members(clips, "gloss").values())


def test_a_random_split_has_the_shares_of_every_gloss(run, path):
    run("data", "split", path, "--by=random", "--val-share=0.25", "--test-share=0.125", "--force")

    counts = Counter((clip.gloss, clip.split) for clip in load_dataset(path))
    assert {counts[gloss, "val"] for gloss in ("book", "drink", "eat", "go")} == {12}
    assert {counts[gloss, "test"] for gloss in ("book", "drink", "eat", "go")} == {6}


@pytest.mark.parametrize("by", ["signer", "session", "random"])
def test_the_same_seed_gives_the_same_split_whatever_the_order_of_the_rows(run, tmp_path, by):
    write_parquet(made_clips(), tmp_path / "a.parquet")
    write_parquet(made_clips()[::-1], tmp_path / "b.parquet")

    splits = []
    for name, seed in (("a", 1), ("b", 1), ("a", 2)):
        run("data", "split", f"{name}.parquet", "--by", by, "--seed", seed, "--output=o.pq")
        splits.append({clip.clip_id: clip.split for clip in load_dataset("o.pq")})
        Path("o.pq").unlink()

    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_chosen_people_go_where_they_are_named_for_and_the_others_train(run, path):
    run("data", "split", path, "--val-signers", "ann", "--test-signers", "bob, cem", "--force")

    signers = members(load_dataset(path), "signer")
    assert signers["val"] == {"ann"}
    assert signers["test"] == {"bob", "cem"}
    assert signers["train"] == {"dan", "eva", "fay", "gus", "hal"}


def test_those_not_named_can_be_divided(run, path):
    run("data", "split", path, "--test-signers=ann", "--by=random", "--val-share=0.25", "--force")

    clips = load_dataset(path)
    counts = Counter(clip.split for clip in clips)
    assert counts == {"test": 24, "val": 42, "train": 126}
    assert {clip.signer for clip in clips if clip.split == "test"} == {"ann"}


def test_json_tells_of_every_part(run, path):
    result = run("data", "split", path, "--by=signer", "--output=o.parquet", "--json")

    facts = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert {"path", "output", "by", "seed", "parts", "notes"} == set(facts)
    assert [part["part"] for part in facts["parts"]] == ["train", "val", "test"]
    assert sum(part["clips"] for part in facts["parts"]) == 192
    assert {"part", "clips", "glosses", "signers", "sessions", "lacking"} == set(facts["parts"][0])
    assert "train" in result.stderr


def test_a_gloss_that_a_part_lacks_and_a_part_of_the_wrong_size_are_warned_of(run, tmp_path):
    clips = [clip for clip in made_clips() if clip.signer in ("ann", "bob", "cem")]
    kept = [clip for clip in clips if clip.signer == "ann" or clip.gloss != "go"]
    write_parquet(kept, tmp_path / "three.parquet")

    result = run("data", "split", "three.parquet", "--by", "signer", "--force")

    assert "warning: val lacks 1 of 4 glosses ('go')" in result.output
    assert "warning: test lacks 1 of 4 glosses ('go')" in result.output
    assert "warning: test has 30 % of the clips where 15 % were wanted" in result.output


def test_too_few_people_for_the_parts_are_refused(run, tmp_path):
    clips = [clip for clip in made_clips() if clip.signer in ("ann", "bob")]
    write_parquet(clips, tmp_path / "x.parquet")

    refused = run("data", "split", "x.parquet", "--by=signer", "--force")
    two_parts = run("data", "split", "x.parquet", "--by=signer", "--val-share=0", "--force")

    assert refused.exit_code == 3
    assert "found 2 signers for 3 splits" in refused.stderr
    assert two_parts.exit_code == 0


def test_columns_that_would_be_lost_are_not_written_over(run, path):
    table = pq.read_table(path)
    pq.write_table(table.append_column("age", pa.array([30] * len(table))), path)

    result = run("data", "split", path, "--by=random", "--force")

    assert result.exit_code == 2
    assert "would be lost (age)" in result.stderr
    assert run("data", "split", path, "--by=random", "--output=o.parquet").exit_code == 0
