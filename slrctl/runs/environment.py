"""What a run was made with: versions, revision, hardware, data."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from slrctl.core.data.dataset import SignDataset
from slrctl.core.devices import describe_device
from slrctl.launch import launched_count

PACKAGES = ("slrctl", "torch", "numba", "numpy", "pandas", "pyarrow", "pydantic", "safetensors")


# What may decide the last bits of a result.
_MATTERS = (
    "versions",
    "git_revision",
    "processor",
    "threads",
    "device",
    "device_name",
    "processes",
)


def describe_environment(device: torch.device, parts: dict[str, SignDataset]) -> dict[str, Any]:
    """Everything needed to say what a number was measured on, fit for JSON."""
    first = next(iter(parts.values()))
    return {
        **describe_machine(device),
        "data": {
            name: {"clips": len(part), "fingerprint": part.fingerprint()}
            for name, part in parts.items()
        },
        "classes": list(first.classes),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions, revision, hardware and command of this process."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in PACKAGES},
        },
        "git_revision": git_revision(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": launched_count(),
        "device": str(device),
        "device_name": describe_device(device),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was and may change the last bits of a result, a line each."""
    pairs = {name: (before.get(name), now.get(name)) for name in _MATTERS if name != "versions"}
    versions = before.get("versions") or {}
    pairs |= {name: (versions.get(name), value) for name, value in now["versions"].items()}
    return [
        f"{name}: {was} before, {value} now" for name, (was, value) in pairs.items() if was != value
    ]


def git_revision() -> str | None:
    """The revision slrctl's own source is at, with + where it was changed since; None elsewhere."""
    folder = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
