"""Fixtures that many tests share."""

import os

# Before torch is imported: threads that wait for one another do not spin, as in the command.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import prepared_clip, signing_clip

from slrctl.core import skeleton
from slrctl.core.clip import ClipBatch, collate
from slrctl.core.data.batches import clip_batch
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.splits import Splits, choose_splits
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.layers import RECIPES
from slrctl.settings import DataSettings, Settings

# Tiny tensors gain nothing from a second thread, and parallel test workers lose by it.
torch.set_num_threads(1)


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.markexpr == "not slow":
        return "quick tests only; all: pytest -m 'slow or not slow'"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the trainings of minutes: the one that began last would end all tests."""
    items.sort(key=lambda item: item.path.name != "test_acceptance.py")


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real landmark clips, which lie beside the repository."""
    if not SHARED_DATA.is_dir():
        message = f"no real clips at {SHARED_DATA}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message}, and CI must run these tests")
        pytest.skip(message)
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give commands, and processes that tests start, a cache that is not the user's own.

    For all tests at once, because processes that several tests share start before any of them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def num_classes() -> int:
    return 4


@pytest.fixture(scope="session")
def tiny_settings() -> Settings:
    """The published model and preparation, small enough to train in a second."""
    return Settings.layered(
        RECIPES["siformer"],
        {
            "model": {
                "num_encoder_layers": 2,
                "num_decoder_layers": 1,
                "ffn_dim": 16,
                "max_frames": 12,
            },
            "train": {
                "epochs": 2,
                "batch_size": 4,
                "learning_rate": 1e-3,
                "weight_decay": 0.01,
                "schedule": "cosine",
                "warmup_epochs": 0.5,
                "clip_gradient": 1.0,
                "label_smoothing": 0.1,
                "precision": "fp32",  # whatever the machine
            },
            "evaluate": {"resamples": 100},
        },
    )


@pytest.fixture(scope="session")
def small_settings() -> Settings:
    """The default model, small; clips keep their frames."""
    return Settings.layered(
        {
            "prepare": {"num_frames": 0},
            "model": {"embed_dim": 16, "joint_dim": 24, "num_heads": 2, "max_frames": 12},
        }
    )


@pytest.fixture
def placed_batch(small_settings: Settings) -> ClipBatch:
    """Three clips of 12, 9 and 10 frames with placed landmarks; one has no left hand."""
    clips = [signing_clip(1, 12, "0"), signing_clip(2, 9, "2"), signing_clip(3, 10, "3")]
    clips[1].landmarks[:, skeleton.LEFT_HAND] = np.nan
    return clip_batch(clips, ["0", "1", "2", "3"], small_settings, is_canonical=True)


@pytest.fixture
def batch(rng: torch.Generator) -> ClipBatch:
    """Three clips of 7, 5 and 6 frames; hands that come and go, and one that never shows."""
    clips = [
        prepared_clip(rng, "first", 7, "0"),
        prepared_clip(rng, "second", 5, "2"),
        prepared_clip(rng, "third", 6, "3"),
    ]
    clips[0].landmarks[:2, 12:33] = np.nan  # the left hand enters later
    clips[1].landmarks[:, 12:33] = np.nan  # no left hand at all
    clips[2].landmarks[3:, 33:54] = np.nan  # the right hand leaves
    return collate(clips, ["0", "1", "2", "3"])


@pytest.fixture(scope="session")
def tiny_dataset() -> SignDataset:
    """Four signs of one and of two hands, by four signers: 8, 4 and 4 clips of 8-12 frames."""
    parameters = SynthesisParameters(
        num_glosses=13,
        num_train_signers=2,
        num_val_signers=1,
        num_test_signers=1,
        repetitions=1,
        num_sessions=1,
        min_frames=8,
        max_frames=12,
        max_lag=2,
    )
    synthetic = synthesise(parameters, name="tiny")
    chosen = [sign.gloss for sign in (*synthetic.signs[4:10:2], synthetic.signs[12])]
    clips = tuple(clip for clip in synthetic.dataset if clip.gloss in chosen)
    return SignDataset(clips, tuple(sorted(chosen)), "tiny")


@pytest.fixture(scope="session")
def tiny_splits(tiny_dataset: SignDataset) -> Splits:
    return choose_splits(tiny_dataset, None, None, DataSettings(), seed=0)


@pytest.fixture
def threads():
    """A function that sets the number of torch's threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
