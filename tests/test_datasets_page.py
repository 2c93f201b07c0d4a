"""`datasets/README.md`: what it tells people to run does what it says."""

import csv
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.core.data import readers as formats
from slrctl.core.data.dataset import load_dataset
from slrctl.errors import DataError
from slrctl.settings import DataSettings

PAGE = Path(__file__).parents[1] / "datasets" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


@pytest.fixture
def example_reader(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    reader = ModuleType("example_reader")
    exec(compile(block_with("def recognises"), str(PAGE), "exec"), reader.__dict__)  # noqa: S102
    monkeypatch.setattr(formats, "READERS", (reader, *formats.READERS))
    return reader


def line(clip_id: str, *, right: object = ((0.4, 0.6),)) -> str:
    frame = {"body": [[0.5, 0.2], None], "left": None, "right": right}
    return json.dumps({"id": clip_id, "sign": "book", "frames": [frame, frame]})


def test_the_example_reader_reads_its_own_example(tmp_path: Path, example_reader: ModuleType):
    path = tmp_path / "signs.jsonl"
    path.write_text("\n".join([line("a1"), line("a2")]), encoding="utf-8")

    dataset = load_dataset(path)

    assert [clip.clip_id for clip in dataset] == ["a1", "a2"]
    landmarks = dataset[0].landmarks
    assert landmarks.shape == (2, skeleton.NUM_LANDMARKS, 2)
    np.testing.assert_allclose(landmarks[0, 0], [0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(landmarks[1, skeleton.RIGHT_HAND][0], [0.4, 0.6], rtol=1e-6)
    assert np.isfinite(landmarks).all(-1).sum() == 4


@pytest.mark.parametrize(
    "bad", ["{}", "[1]", "not json", line("b", right=3), line("b", right=[["x", 1]]), ""]
)
def test_the_example_reader_names_the_line_it_cannot_read(
    tmp_path: Path, example_reader: ModuleType, bad: str
):
    path = tmp_path / "signs.jsonl"
    path.write_text("\n".join([line("a1"), bad, line("a2")]), encoding="utf-8")

    with pytest.raises(DataError, match="row 2: found"):
        load_dataset(path)

    skipping = load_dataset(path, DataSettings(skip_bad_clips=True))
    assert [clip.clip_id for clip in skipping] == ["a1", "a2"]


def written(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> list[dict]:
    """Run a block of the page in a folder, and read the table it writes."""
    monkeypatch.chdir(folder)
    exec(compile(block, str(PAGE), "exec"), {})  # noqa: S102
    with (folder / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_wlasls_index_becomes_a_table_of_videos_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "videos").mkdir()
    videos = [{"video_id": "69241", "signer_id": 118, "split": "train"}]
    index = [{"gloss": "book", "instances": videos}, {"gloss": "drink", "instances": []}]
    (tmp_path / "WLASL_v0.3.json").write_text(json.dumps(index))

    rows = written(block_with("WLASL_v0.3"), tmp_path, monkeypatch, "videos/wlasl100.csv")

    assert rows == [{"path": "69241.mp4", "gloss": "book", "signer": "118", "split": "train"}]
    assert json.loads((tmp_path / "glosses.json").read_text()) == {"0": "book", "1": "drink"}


def test_lsa64s_file_names_become_a_table_of_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "lsa64").mkdir()
    (tmp_path / "lsa64" / "001_004_002.mp4").touch()

    rows = written(block_with("lsa64"), tmp_path, monkeypatch, "lsa64/videos.csv")

    assert rows == [{"path": "001_004_002.mp4", "gloss": "001", "signer": "signer004"}]


def test_autsls_labels_become_a_table_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "autsl"
    folder.mkdir()
    for name in ("train_labels", "ground_truth", "test_labels"):
        (folder / f"{name}.csv").write_text("signer0_sample14,41\n")

    rows = written(block_with("autsl"), tmp_path, monkeypatch, "autsl/videos.csv")

    assert [row["split"] for row in rows] == ["train", "val", "test"]
    assert rows[0] == {
        "path": "train/signer0_sample14_color.mp4",
        "gloss": "41",
        "signer": "signer0",
        "split": "train",
    }


def test_asl_citizens_splits_become_a_table_of_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ASL_Citizen" / "splits").mkdir(parents=True)
    (tmp_path / "ASL_Citizen" / "videos").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "ASL_Citizen" / "splits" / f"{split}.csv").write_text(
            f"Participant ID,Video file,Gloss,ASL-LEX Code\nP1,{split}.mp4,DOG,C_1\n"
        )

    rows = written(
        block_with("ASL_Citizen"), tmp_path, monkeypatch, "ASL_Citizen/videos/videos.csv"
    )

    assert [row["path"] for row in rows] == ["train.mp4", "val.mp4", "test.mp4"]
    assert [row["split"] for row in rows] == ["train", "val", "test"]
    assert (rows[0]["gloss"], rows[0]["signer"]) == ("DOG", "P1")
