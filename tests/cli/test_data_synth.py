"""`slrctl data synth` as a user meets it."""

import json
import shlex
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.selection import spread_over_glosses
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.settings import DataSettings

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
SMALL = [
    *("--glosses=3", "--train-signers=2", "--val-signers=1", "--test-signers=1", "--sessions=1"),
    *("--repetitions=2", "--min-frames=8", "--max-frames=12", "--max-lag=2"),
]


def test_without_options_it_is_the_demo_set(run):
    result = run("data", "synth", "demo.parquet")

    assert result.exit_code == 0, result.output
    assert "1,152 clips (720 train, 144 val, 288 test) written to demo.parquet" in result.output
    assert load_dataset("demo.parquet").fingerprint() == synthesise().dataset.fingerprint()


@pytest.mark.parametrize("field", [field.name for field in fields(SynthesisParameters)])
def test_every_parameter_has_an_option_that_reaches_the_generator(run, field):
    values = {"jitter": 0.5, "hand_dropout": 0.5, "landmark_dropout": 0.5, "min_frames": 9}
    values |= {"max_frames": 14, "num_sessions": 2}
    value = values.get(field, 3)
    option = f"--{field.removeprefix('num_').replace('_', '-')}"

    result = run("data", "synth", "made.parquet", "--json", *SMALL, f"{option}={value}")

    assert result.exit_code == 0, result.output
    parameters = json.loads(result.stdout)["parameters"]
    assert parameters[field] == value
    assert (
        load_dataset("made.parquet").fingerprint()
        == synthesise(SynthesisParameters(**parameters)).dataset.fingerprint()
    )


def test_the_seed_decides(run):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("data", "synth", f"{name}.parquet", "--seed", seed, *SMALL)

    same, again, other = (Path(f"{name}.parquet").read_bytes() for name in "abc")
    assert same == again
    assert same != other


def test_the_choice_of_clips_does_not_hang_on_their_order(tiny_dataset):
    forwards = spread_over_glosses(tiny_dataset.clips, 6, 0)
    backwards = spread_over_glosses(tiny_dataset.clips[::-1], 6, 0)

    assert [clip.clip_id for clip in forwards] == [clip.clip_id for clip in backwards[::-1]]


def test_few_clips_are_spread_over_the_glosses_and_their_truth_written_beside(run):
    run("data", "synth", "made.parquet", "--truth", "truth.json", "--clips=7", *SMALL)

    clips = load_dataset("made.parquet")
    assert sorted(Counter(clip.gloss for clip in clips).values()) == [2, 2, 3]
    truth = json.loads(Path("truth.json").read_text())
    assert list(truth) == [clip.clip_id for clip in clips]
    assert set(truth[next(iter(truth))]) == {
        *("dominant_hand", "leading_hand", "lag", "kind", "is_two_handed", "stroke"),
    }


def test_the_sample_is_what_its_command_makes_to_the_byte_and_reads_back_as_its_clips(run):
    lines = (DATASETS / "README.md").read_text(encoding="utf-8").splitlines()
    (command,) = (line for line in lines if line.startswith("slrctl data synth"))
    settings = DataSettings(gloss_names=DATASETS / "sample.glosses.json")

    result = run(*shlex.split(command)[1:])
    run(*shlex.split(command.replace("sample.csv", "sample.parquet"))[1:])

    assert result.exit_code == 0, result.output
    for name in ("sample.csv", "sample.glosses.json"):
        assert Path("datasets", name).read_bytes() == (DATASETS / name).read_bytes()
    sample = load_dataset(DATASETS / "sample.csv", settings)
    assert len(sample) == 12
    for clip, original in zip(sample, load_dataset("datasets/sample.parquet"), strict=True):
        assert (clip.gloss, clip.fps) == (original.gloss, original.fps)
        assert clip.aspect == pytest.approx(original.aspect)
        # The generator rounds to five decimals, the file holds six.
        assert_array_equal(clip.landmarks, original.landmarks)
