"""The environment of a run: versions, revision, hardware, data."""

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
# Beside the versions, all that may change the last bits of a result.
_RELEVANT = ("git_revision", "processor", "threads", "device", "device_name", "processes")


def describe_environment(device: torch.device, splits: dict[str, SignDataset]) -> dict[str, Any]:
    """Describe the machine and the data of a run, fit for JSON."""
    return {
        **describe_machine(device),
        "data": {
            name: {"clips": len(split), "fingerprint": split.fingerprint()}
            for name, split in splits.items()
        },
        "classes": list(next(iter(splits.values())).classes),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return versions, revision, hardware and command of this process."""
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
    """List, one a line, the differences that may change the last bits of a result."""
    pairs = {name: (before.get(name), now.get(name)) for name in _RELEVANT}
    versions = before.get("versions") or {}
    pairs |= {name: (versions.get(name), version) for name, version in now["versions"].items()}
    return [
        f"{name}: {was} before, {is_now} now"
        for name, (was, is_now) in pairs.items()
        if was != is_now
    ]


def git_revision() -> str | None:
    """Return the revision of slrctl's own source, with + if it was changed; None without git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    """Return the processor's name, as far as the system gives one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
