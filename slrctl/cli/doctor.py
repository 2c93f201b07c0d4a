"""`slrctl doctor`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from slrctl.cli import options as opt
from slrctl.cli.console import Display, visible

if TYPE_CHECKING:
    from slrctl.training.self_test import Check


@opt.command()
def doctor(
    device: Annotated[str, opt.option("Where to compute: auto, cpu, cuda, mps.")] = "auto",
    as_json: opt.Json = False,
) -> None:
    """Check this installation: packages, arithmetic, determinism, saving, folders.

    Takes a few steps of small trainings and keeps nothing. The exit code is 1 if a check fails.
    Attach the output to a report of a fault; it names no file of yours but the folders slrctl
    writes to.
    """
    display = Display(as_json=as_json)
    from slrctl.training.self_test import examine

    facts, checks = examine(device)
    display.facts(_in_words(facts))
    seen: list[Check] = []
    for check in checks:
        seen.append(check)
        mark = ("ok    ", "green") if check.is_ok else ("FAILED", "bold red")
        said = f"  {check.name:<21} {visible(check.detail)}"
        display.lines(Text.assemble(mark, said, (f"  {check.seconds:.1f} s", "dim")))
    failed = [check.name for check in seen if not check.is_ok]
    verdict = f"{len(failed)} of {len(seen)} checks failed: {', '.join(failed)}"
    display.lines(verdict if failed else f"all {len(seen)} checks passed")
    display.json({"is_ok": not failed, **facts, "checks": [c._asdict() for c in seen]})
    if failed:
        raise typer.Exit(1)


def _in_words(facts: dict[str, Any]) -> dict[str, str]:
    versions = dict(facts["versions"])
    python, ours = versions.pop("python"), versions.pop("slrctl")
    revision = f" at {facts['git_revision'][:12]}" if facts["git_revision"] else ""
    extras = [f"{name} ({version})" for name, version in facts["extras"].items() if version]
    memory = f", {facts['memory_gb']:g} GB" if facts["memory_gb"] else ""
    return {
        "slrctl": f"{ours}{revision}, Python {python}, {facts['platform']}",
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "extras": ", ".join(extras) or "none",
        "processor": f"{facts['processor']} ({facts['cpu_capability']}), "
        f"{facts['cores']} cores{memory}",
        "device": f"{facts['device']}: {facts['device_name']}",
    }
