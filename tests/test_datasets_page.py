"""`datasets/README.md`: what it tells people to run does what it says."""

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from slrctl.core import skeleton
from slrctl.core.data import readers as formats
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.splitter import SPLITS
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


WLASL = [
    {"gloss": "book", "instances": [{"video_id": "69241", "signer_id": 118, "split": "train"}]},
    {"gloss": "drink", "instances": []},
]
ASL_CITIZEN = "Participant ID,Video file,Gloss,ASL-LEX Code\nP1,{}.mp4,DOG,C_1\n"


@pytest.mark.parametrize(
    ("block", "given", "table", "expected"),
    [
        (
            "WLASL_v0.3",
            {"WLASL_v0.3.json": json.dumps(WLASL), "videos/69241.mp4": ""},
            "videos/wlasl100.csv",
            ["69241.mp4,book,118,train"],
        ),
        (
            "lsa64",
            {"lsa64/001_004_002.mp4": ""},
            "lsa64/videos.csv",
            ["001_004_002.mp4,001,signer004"],
        ),
        (
            "autsl",
            {
                f"autsl/{name}.csv": f"signer{n}_sample14,41\n"
                for n, name in enumerate(("train_labels", "ground_truth", "test_labels"))
            },
            "autsl/videos.csv",
            [
                f"{split}/signer{n}_sample14_color.mp4,41,signer{n},{split}"
                for n, split in enumerate(SPLITS)
            ],
        ),
        (
            "ASL_Citizen",
            {f"ASL_Citizen/splits/{split}.csv": ASL_CITIZEN.format(split) for split in SPLITS}
            | {"ASL_Citizen/videos/any.mp4": ""},
            "ASL_Citizen/videos/videos.csv",
            [f"{split}.mp4,DOG,P1,{split}" for split in SPLITS],
        ),
    ],
    ids=["wlasl", "lsa64", "autsl", "asl_citizen"],
)
def test_the_index_of_a_set_becomes_a_table_of_its_videos(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: str,
    given: dict[str, str],
    table: str,
    expected: list[str],
):
    for name, text in given.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)

    exec(compile(block_with(block), str(PAGE), "exec"), {})  # noqa: S102

    columns, *rows = (tmp_path / table).read_text(encoding="utf-8").splitlines()
    assert "path,gloss,signer,split".startswith(columns)
    assert rows == expected
    if block == "WLASL_v0.3":
        names = json.loads((tmp_path / "glosses.json").read_text())
        assert names == {"0": "book", "1": "drink"}
