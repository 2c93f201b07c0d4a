import json

import pytest
import torch

from slrctl.core.data.splits import choose_splits
from slrctl.errors import SlrctlError, UsageError
from slrctl.settings import DataSettings, Settings
from slrctl.training.loop import PHASES
from slrctl.training.profile import MOST_OPERATORS, STEPS, ProfileReport, profile_training

SMALL = Settings.layered(
    {
        "model": {"num_encoder_layers": 1, "num_decoder_layers": 1, "ffn_dim": 16},
        "train": {"batch_size": 2},
    }
)


@pytest.fixture(scope="module")
def profiled(tiny_dataset, tmp_path_factory) -> tuple[ProfileReport, dict]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # phases in other threads would be missed
    trace = tmp_path_factory.mktemp("profile") / "trace.json"
    splits = choose_splits(tiny_dataset, None, None, DataSettings(), seed=0)
    report = profile_training(SMALL, splits, trace)
    torch.set_num_threads(before)
    return report, json.loads(trace.read_text(encoding="utf-8"))


def test_the_shares_of_the_phases_are_of_the_whole(profiled):
    report, _ = profiled

    assert tuple(report.phases) == PHASES
    assert sum(report.phases.values()) == pytest.approx(1)
    assert min(report.phases.values()) > 0


def test_the_dearest_operators_come_first(profiled):
    report, _ = profiled
    shares = [cost.share for cost in report.operators]

    assert len(shares) == MOST_OPERATORS
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert any(cost.name.startswith("aten::") for cost in report.operators)


def test_the_trace_shows_every_phase_of_every_watched_step(profiled):
    _, trace = profiled
    names = [event.get("name") for event in trace["traceEvents"] if event.get("ph") == "X"]

    assert {name: names.count(name) for name in PHASES[1:]} == dict.fromkeys(PHASES[1:], STEPS)
    assert names.count("data") >= STEPS


def test_a_trace_that_cannot_be_written_is_one_line(tiny_splits, tmp_path):
    name = "a" * 250  # with what is put before and behind it too long for a file system

    with pytest.raises(SlrctlError, match="the trace cannot be written there"):
        profile_training(SMALL, tiny_splits, tmp_path / name)


def test_a_trace_in_no_folder_is_refused(tiny_splits, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        profile_training(SMALL, tiny_splits, tmp_path / "not there" / "trace.json")


def test_a_trace_replaces_nothing_that_is_there(tiny_splits, tmp_path):
    (tmp_path / "thesis").write_text("mine")

    with pytest.raises(UsageError, match="is there already"):
        profile_training(SMALL, tiny_splits, tmp_path / "thesis")

    assert (tmp_path / "thesis").read_text() == "mine"
