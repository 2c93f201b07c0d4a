"""A sound installation passes every check, and each check can fail."""

import pytest
import torch

from slrctl.core.model.streamformer import StreamFormer
from slrctl.settings import ModelSettings, Settings
from slrctl.training import self_test as checks
from slrctl.training.self_test import machine_facts, self_test

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _small():
    """The same checks of a smaller model."""
    model = ModelSettings(embed_dim=16, joint_dim=16, max_frames=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "Settings", lambda **given: Settings(model=model, **given))
        yield


@pytest.fixture(scope="module")
def trained():
    return checks._train(1, CPU)


def test_a_sound_installation_passes_every_check_and_keeps_nothing(tmp_path):
    found = list(self_test(CPU, {"runs": tmp_path / "not" / "there"}))

    assert {check.name: check.is_ok for check in found} == dict.fromkeys(
        (
            "packages",
            "arithmetic",
            "training",
            "same seed, same bits",
            "another seed differs",
            "alone or in a batch",
            "saved and loaded",
            "bf16",
            "runs",
        ),
        True,
    )
    assert list(tmp_path.iterdir()) == []


def another_seed_each_time(patch, trained):
    train = checks._train
    patch.setattr(checks, "_train", lambda seed, *rest: train(seed + 1, *rest))


def a_seed_without_effect(patch, trained):
    patch.setattr(checks, "_train", lambda *_: trained)


def a_prediction_that_depends_on_its_batch(patch, trained):
    forward = StreamFormer.forward

    def leaking(self, batch, **asked):
        output = forward(self, batch, **asked)
        return output._replace(logits=output.logits + 1e-3 * output.logits.mean(0))

    patch.setattr(StreamFormer, "forward", leaking)


def a_state_that_is_rounded(patch, trained):
    load = checks.load_checkpoint

    def rounding(path):
        saved = load(path)
        return saved._replace(tensors={n: t.half().to(t.dtype) for n, t in saved.tensors.items()})

    patch.setattr(checks, "load_checkpoint", rounding)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (another_seed_each_time, checks._check_same_seed),
        (a_seed_without_effect, checks._check_other_seed),
        (a_prediction_that_depends_on_its_batch, checks._check_batch_size),
        (a_state_that_is_rounded, checks._check_saving),
    ],
)
def test_a_fault_is_found_by_its_check(monkeypatch, trained, fault, check):
    fault(monkeypatch, trained)

    assert not check(trained)[0]


def test_a_package_that_is_missing_is_named(monkeypatch):
    version = checks._version
    monkeypatch.setattr(checks, "_version", lambda name: None if name == "scipy" else version(name))

    is_ok, detail = checks._check_packages()

    assert not is_ok
    assert "scipy" in detail


def test_a_check_that_cannot_be_made_has_failed_with_its_reason_and_those_it_leads_to_are_left_out(
    monkeypatch, tmp_path
):
    def impossible(*_):
        raise RuntimeError("no such\ndevice")

    monkeypatch.setattr(checks, "_train", impossible)
    (tmp_path / "file").touch()

    *_, training, folder = self_test(CPU, {"runs": tmp_path / "file"})

    assert training[:3] == ("training", False, "no such device")
    assert folder[:2] == ("runs", False)


def test_the_facts_name_versions_and_the_machine():
    facts = machine_facts(CPU)

    assert facts["versions"]["torch"] == torch.__version__
    assert set(facts["extras"]) == set(checks.EXTRAS)
    assert facts["cores"] >= 1
