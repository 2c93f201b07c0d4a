from pathlib import Path

import pytest
import torch

from slrctl.core.model.siformer import SiFormer
from slrctl.settings import ModelSettings, Settings
from slrctl.training import self_test as checks
from slrctl.training.self_test import Check, machine_facts, self_test

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _small() -> object:
    """The same checks of a smaller model."""
    model = ModelSettings(num_encoder_layers=1, num_decoder_layers=1, ffn_dim=16, max_frames=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "Settings", lambda **given: Settings(model=model, **given))
        yield


@pytest.fixture(scope="module")
def trained() -> checks._Trained:
    return checks._train(1, CPU)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Check]:
    return list(self_test(CPU, {"runs": tmp_path_factory.mktemp("runs") / "not" / "there"}))


def test_a_sound_installation_passes_every_check(found: list[Check]):
    assert [check for check in found if not check.is_ok] == []
    assert [check.name for check in found] == [
        "packages",
        "arithmetic",
        "training",
        "same seed, same bits",
        "another seed differs",
        "alone or in a batch",
        "saved and loaded",
        "bf16",
        "runs",
    ]


def test_a_training_that_does_not_repeat_is_found(
    monkeypatch: pytest.MonkeyPatch, trained: checks._Trained
):
    train = checks._train
    monkeypatch.setattr(checks, "_train", lambda seed, *rest: train(seed + 1, *rest))

    assert not checks._repeats(trained, CPU)[0]


def test_a_seed_without_effect_is_found(monkeypatch: pytest.MonkeyPatch, trained: checks._Trained):
    monkeypatch.setattr(checks, "_train", lambda *_: trained)

    assert not checks._differs(trained, CPU)[0]


def test_a_prediction_that_depends_on_its_batch_is_found(
    monkeypatch: pytest.MonkeyPatch, trained: checks._Trained
):
    forward = SiFormer.forward

    def leaking(self, batch, **asked):
        output = forward(self, batch, **asked)
        return output._replace(logits=output.logits + 1e-3 * output.logits.mean(0))

    monkeypatch.setattr(SiFormer, "forward", leaking)

    assert not checks._does_not_depend_on_batch(trained)[0]


def test_a_state_that_changes_when_it_is_saved_is_found(
    monkeypatch: pytest.MonkeyPatch, trained: checks._Trained
):
    load = checks.load_checkpoint

    def rounding(path: Path):
        saved = load(path)
        return saved._replace(tensors={n: t.half().to(t.dtype) for n, t in saved.tensors.items()})

    monkeypatch.setattr(checks, "load_checkpoint", rounding)

    assert not checks._survives_saving(trained, CPU)[0]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    version = checks._version
    monkeypatch.setattr(checks, "_version", lambda name: None if name == "scipy" else version(name))

    assert checks._packages() == (False, "missing: scipy; install slrctl again")


def test_a_check_that_cannot_be_made_has_failed_with_its_reason():
    def impossible() -> tuple[bool, str]:
        raise RuntimeError("no such\ndevice")

    assert checks._timed("it", impossible)[:3] == ("it", False, "no such device")


def test_a_folder_that_cannot_be_written_to_is_found(tmp_path: Path):
    path = tmp_path / "file"
    path.touch()

    assert not checks._timed("runs", lambda: checks._can_be_written(path)).is_ok


def test_a_folder_is_left_as_it_was(tmp_path: Path):
    assert checks._can_be_written(tmp_path / "runs")[0]
    assert list(tmp_path.iterdir()) == []


def test_the_facts_name_versions_and_the_machine():
    facts = machine_facts(CPU)

    assert facts["versions"]["torch"] == torch.__version__
    assert set(facts["extras"]) == set(checks.EXTRAS)
    assert facts["cores"] >= 1
