"""What `slrctl train` shows before and after a training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.console import print_facts, print_json, print_lines, print_table
from slrctl.layers import Resolved, cmcl_name, flatten

if TYPE_CHECKING:
    from slrctl.core.data.splits import Parts
    from slrctl.evaluation.bootstrap import Evaluation
    from slrctl.settings import CMCLSettings, Settings
    from slrctl.training.run import RunReport


def show_settings(console: Console, resolved: Resolved, *, as_json: bool) -> None:
    values = flatten(resolved.settings.model_dump(mode="json"))
    if as_json:
        print_json(
            {
                key: {"value": value, "origin": resolved.origins[key]}
                for key, value in values.items()
            }
        )
        return
    rows = [(key, _written(value), resolved.origins[key]) for key, value in values.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print_lines(
        console,
        [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for key, value, origin in rows],
    )


def _written(value: object) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def show_header(console: Console, settings: "Settings", parts: "Parts") -> None:
    from slrctl.core.data.splits import named_parts
    from slrctl.core.devices import choose_device, choose_precision, describe_device
    from slrctl.core.model import num_parameters

    device = choose_device(settings.train.device)
    precision = choose_precision(settings.train.precision, device)
    num_weights = num_parameters(settings.model, len(parts.train.classes))
    counts = ", ".join(f"{len(part)} {name}" for name, part in named_parts(parts).items())
    print_facts(
        console,
        {
            "data": f"{parts.train.name}: {counts} clips, {len(parts.train.classes)} glosses, "
            f"{_signers(parts)}",
            "hands": _missing_hands(parts),
            "model": f"{settings.model.name}, {num_weights:,} parameters, "
            f"{settings.model.attention} attention, {_describe_streams(settings)}",
            "loss": _describe_loss(settings),
            "run": f"{_describe_epochs(settings)}, batch {settings.train.batch_size}, "
            f"learning rate {settings.train.learning_rate:g}, recipe {settings.recipe}, "
            f"seed {settings.seed}, {precision} on {device} "
            f"({describe_device(device)})",
        },
    )
    print_lines(console, parts.notes)


def _describe_epochs(settings: "Settings") -> str:
    epochs, patience = settings.train.epochs, settings.train.patience
    return f"{epochs} epochs" + (f" or {patience} without a better one" if patience else "")


def _describe_streams(settings: "Settings") -> str:
    if settings.model.name == "spoter":
        return "one stream"
    return f"cross-attention {'on' if settings.model.cross_attention else 'off'}"


def _signers(parts: "Parts") -> str:
    from slrctl.core.data.splits import named_parts

    signers = {clip.signer for part in named_parts(parts).values() for clip in part}
    known = signers - {None}
    return f"{len(known)} signers" if known else "signers not stated"


def _missing_hands(parts: "Parts") -> str:
    from slrctl.core.data.splits import missing_hand_share

    left, right = missing_hand_share(parts.train)
    return f"left missing in {100 * left:.0f} %, right in {100 * right:.0f} % of training frames"


def _describe_loss(settings: "Settings") -> str:
    cmcl = settings.cmcl
    if not cmcl.is_on:
        return "cross-entropy (CMCL off)"
    return (
        f"cross-entropy + {cmcl.lambda_consistency:g} consistency ({_consistency_form(cmcl)}) "
        f"+ {cmcl.lambda_alignment:g} alignment{_alignment_form(cmcl)}, "
        f"{'adaptive' if cmcl.adaptive else 'fixed'} lambdas (CMCL {cmcl_name(settings)})"
    )


def _consistency_form(cmcl: "CMCLSettings") -> str:
    form = cmcl.divergence if cmcl.consistency == "kl" else "cycle"
    temporal = " + temporal" if cmcl.temporal else ""
    is_softened = cmcl.consistency == "kl" or cmcl.temporal
    return f"{form}{temporal}" + (f", temperature {cmcl.temperature:g}" if is_softened else "")


def _alignment_form(cmcl: "CMCLSettings") -> str:
    differs = [cmcl.alignment] if cmcl.alignment != "cosine" else []
    differs += ["every layer"] if cmcl.multi_scale else []
    return f" ({', '.join(differs)})" if differs else ""


def show_results(console: Console, finished: "RunReport", run_dir: Path) -> None:
    parts = [("validation", finished.validation), ("test", finished.test)]
    columns = [(name, evaluation) for name, evaluation in parts if evaluation is not None]
    headings = ["", *(heading for name, _ in columns for heading in (name, "95 % interval"))]
    print_table(
        console,
        f"best epoch {finished.summary['best_epoch']} of {finished.summary['epochs']}",
        headings,
        list(_result_rows([evaluation for _, evaluation in columns])),
    )
    print_lines(
        console,
        [
            *(f"{name}: {e.note}" for name, e in columns if e.note),
            f"saved in {run_dir}; next:",
            f"  slrctl evaluate {run_dir}",
            f"  slrctl evaluate {run_dir} --data OTHER_CLIPS",
        ],
    )


def _result_rows(evaluations: "Sequence[Evaluation]") -> Iterator[list[str]]:
    from slrctl.reports.tables import overall_rows

    for rows in zip(*(overall_rows(evaluation) for evaluation in evaluations), strict=True):
        yield [rows[0].metric, *(cell for row in rows for cell in (row.value, row.interval))]
