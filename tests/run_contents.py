"""Contents of a run's folder, for comparisons."""

import json
from pathlib import Path
from typing import Any

from slrctl.runs import folder as run_folder

_TIMES = ("seconds", "clips_per_second")
_BYTES = (run_folder.LAST, run_folder.BEST, run_folder.PREDICTIONS, run_folder.SETTINGS)


def contents(run_dir: Path) -> dict[str, Any]:
    """All that a finished run holds, without times and its own name."""
    summary = json.loads((run_dir / run_folder.SUMMARY).read_text())
    lines = (run_dir / run_folder.METRICS).read_text().splitlines()
    return {
        **{name: (run_dir / name).read_bytes() for name in _BYTES},
        run_folder.METRICS: [_without(json.loads(line), _TIMES) for line in lines],
        run_folder.SUMMARY: _without(summary, ("seconds", "run_dir")),
        "files": sorted(path.name for path in run_dir.iterdir()),
    }


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
