"""Ids, glosses and people are data from strangers: they command no terminal, page or path."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from slrctl.cli import app
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.readers.parquet import write_parquet

GLOSSES = (
    "<script>alert(1)</script>",
    "../../../outside\x00\n[red]$x$ %&_{}\\input{secret}",
    "\x1b[31mred\x07 \u202eback",
    "=cmd|' /C calc'!A0",
)
IDS = ("../up", "nul\x00", "line\nbreak", "\x1b]0;title\x07", "@sum(1)", "[bold]", "a" * 10_000)
SMALL = [
    *("--set", "model.embed_dim=16", "--set", "model.joint_dim=16"),
    *("--set", "evaluate.resamples=100"),
]


@pytest.fixture
def hostile(tiny_dataset: SignDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of clips with hostile names, and an empty folder to work in, three folders down."""
    glosses = dict(zip(tiny_dataset.classes, GLOSSES, strict=True))
    clips = [
        replace(
            clip,
            clip_id=IDS[number] if number < len(IDS) else clip.clip_id,
            gloss=glosses[clip.gloss],
            signer=f"=1+1 {clip.signer} </td>",
        )
        for number, clip in enumerate(tiny_dataset)
    ]
    path = tmp_path / "one" / "two" / "work" / "clips.parquet"
    path.parent.mkdir(parents=True)
    write_parquet(clips, path)
    monkeypatch.chdir(path.parent)
    return path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"NO_COLOR": "1"})
    assert result.exit_code == 0, (arguments, result.stderr)
    if "--json" in arguments:  # for programs, which want names as they are
        json.loads(result.stdout)
        return result
    commands = re.findall(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", result.output)
    assert commands == [], arguments
    return result


class Page(HTMLParser):
    """The scripts and links of a page, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.links: list[str] = []
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_script = tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts.append(data)
            self._is_script = False


def assert_harmless(folder: Path) -> None:
    """No file of a folder does anything with the names but show them."""
    for path in folder.rglob("*"):
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            formulas = [cell for cell in cells if re.match(r"[=@\t\r]|[+-](?![\d.]|$)", cell)]
            assert formulas == [], path
        elif path.suffix == ".html":
            page = Page(path.read_text(encoding="utf-8"))
            assert not any(script.strip().startswith("alert(1)") for script in page.scripts), path
            assert [link for link in page.links if not link.startswith(("data:", "#"))] == [], path
        elif path.suffix == ".tex":
            assert "\\input" not in path.read_text(encoding="utf-8")
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_hostile_names_are_shown_and_never_obeyed(hostile: Path, tmp_path: Path):
    train = ["--train", "clips.parquet", "--epochs", "1", *SMALL]

    run("data", "info", "clips.parquet", "--output", "pictures")
    run("data", "audit", "clips.parquet", "--allow", "signer,session")
    run("data", "show", "clips.parquet", "1")
    run("data", "cache")
    run("train", *train, "--cmcl", "balanced", "--name", "one")
    run("evaluate", "runs/one", "--output", "tables")
    run("evaluate", "runs/one", "--json")
    run("inspect-attention", "runs/one", "--output", "look")
    run("inspect-attention", "runs/one", "--summary", "--output", "summary")
    run("ablate", *train, "--seeds", "1", "--jobs", "1", "--output", "study", "--variant",
        "full_a=1+1 -x:cmcl.preset=balanced")  # fmt: skip

    for folder in ("pictures", "runs", "tables", "look", "summary", "study"):
        assert_harmless(Path(folder))
    outside = [path for path in tmp_path.rglob("*") if hostile.parent not in (path, *path.parents)]
    assert {path.name for path in outside} == {"one", "two"}


def test_json_keeps_hostile_names_as_they_are(hostile: Path):
    result = run("data", "info", "clips.parquet", "--json")

    assert {row["name"] for row in json.loads(result.stdout)["glosses"]} == set(GLOSSES)
