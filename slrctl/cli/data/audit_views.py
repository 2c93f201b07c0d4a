"""What `slrctl data audit` shows, and what it says as JSON."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from slrctl.cli.console import print_facts, print_lines, print_table

if TYPE_CHECKING:
    import numpy as np

    from slrctl.core.data.audit.copies import Leak
    from slrctl.core.data.audit.leaks import Audit, Fixed, SharedGroup

_KINDS = {
    "exact": "the same, landmark for landmark",
    "near": "a changed copy",
    "mirrored": "a copy in the mirror",
    "interpolated": "interpolated between others",
}
_EDGES = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, math.inf)
_QUANTILES = {"least": 0.0, "p1": 0.01, "p5": 0.05, "p25": 0.25, "median": 0.5}
_BAR = 30


def show_audit(console: Console, audit: "Audit", allowed: frozenset[str], most: int) -> None:
    sizes = audit.sizes
    shared = [*audit.signers, *audit.sessions]
    print_facts(
        console,
        {
            "splits": ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " clips",
            "copies": _said(audit, ("exact", "near", "mirrored"), "pair"),
            "interpolated": _said(audit, ("interpolated",), "clip"),
            "signers": _shared_line(audit, "signer", audit.signers),
            "sessions": _shared_line(audit, "session", audit.sessions),
            "glosses": _missing_line(audit.missing),
        },
    )
    if audit.leaks:
        _show_leaks(console, audit, most)
    if shared:
        _show_groups(console, shared, list(sizes), most)
    if audit.hints:
        _show_hints(console, audit, most)
    _show_distances(console, audit)
    print_lines(console, [_verdict(audit, allowed)])


def _said(audit: "Audit", kinds: Sequence[str], noun: str) -> str:
    from slrctl.errors import count_of

    found = [(kind, audit.count(kind)) for kind in kinds if audit.count(kind)]
    if not found:
        return "none found"
    listed = ", ".join(f"{count:,} {kind}" for kind, count in found)
    return f"{count_of(sum(count for _, count in found), noun)}: {listed}"


def _shared_line(audit: "Audit", kind: str, groups: "Sequence[SharedGroup]") -> str:
    from slrctl.errors import count_of

    if all(getattr(clip, kind) is None for clip in audit.clips):
        return "not stated"
    return f"{count_of(len(groups), kind)} in more than one split" if groups else "none shared"


def _missing_line(missing: dict[str, list[str]]) -> str:
    from slrctl.errors import some_of

    if not missing:
        return "every split shows all of them"
    return "; ".join(
        f"{split} lacks {len(glosses)}: {some_of(glosses)}" for split, glosses in missing.items()
    )


def _show_leaks(console: Console, audit: "Audit", most: int) -> None:
    shown = audit.leaks[:most]
    print_table(
        console,
        f"leaks between clips: {_of_all(len(shown), len(audit.leaks))}",
        ["clip", "in", "tells of", "in", "it is", "unexplained"],
        [
            [
                audit.clips[leak.first].clip_id,
                audit.split(leak.first),
                _origin(audit, leak),
                audit.split(leak.second),
                _KINDS[leak.kind],
                f"{leak.unexplained:.4f}",
            ]
            for leak in shown
        ],
        num_texts=5,
    )


def _origin(audit: "Audit", leak: "Leak") -> str:
    origin = audit.clips[leak.second].clip_id
    return origin if leak.third is None else f"{origin} + {audit.clips[leak.third].clip_id}"


def _show_groups(
    console: Console, groups: "Sequence[SharedGroup]", splits: list[str], most: int
) -> None:
    shown = groups[:most]
    print_table(
        console,
        f"people and sessions in several splits, in clips: {_of_all(len(shown), len(groups))}",
        ["", "name", *splits],
        [
            [group.kind, group.name, *(f"{group.counts.get(split, 0):,}" for split in splits)]
            for group in shown
        ],
        num_texts=2,
    )


def _show_hints(console: Console, audit: "Audit", most: int) -> None:
    clips = audit.clips
    shown = audit.hints[:most]
    print_table(
        console,
        f"ids that say they were made of a clip of another split (a hint): "
        f"{_of_all(len(shown), len(audit.hints))}",
        ["clip", "in", "made of", "in"],
        [
            [clips[row].clip_id, audit.split(row), clips[origin].clip_id, audit.split(origin)]
            for row, origin in shown
        ],
        num_texts=4,
    )


def _of_all(shown: int, total: int) -> str:
    return f"{total:,}" if shown == total else f"the first {shown:,} of {total:,} (--most, --json)"


def _show_distances(console: Console, audit: "Audit") -> None:
    """Show how alike clips of two splits are, beside takes of one split, and the threshold."""
    across, within = _histogram(audit.across), _histogram(audit.within)
    rows = []
    for low, high, here, there in zip(_EDGES, _EDGES[1:], across, within, strict=False):
        name = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        counts = ((here, len(audit.across)), (there, len(audit.within)))
        rows.append([name, *(cell for pair in counts for cell in (_bar(*pair), f"{pair[0]:,}"))])
    print_table(
        console,
        "unexplained by the most alike clip",
        ["", "of another split", "clips", "of its own split", "clips asked"],
        rows,
        num_texts=2,
    )
    print_lines(console, [_threshold_line(audit)])


def _bar(count: int, total: int) -> str:
    return "█" * math.ceil(_BAR * count / max(total, 1))


def _histogram(values: "np.ndarray") -> list[int]:
    import numpy as np

    bins = np.digitize(np.where(np.isfinite(values), values, _EDGES[-2]), _EDGES[1:-1])
    return np.bincount(bins, minlength=len(_EDGES) - 1).tolist()


def _threshold_line(audit: "Audit") -> str:
    from slrctl.core.data.audit.copies import COPY_THRESHOLD

    within = _quantiles(audit.within)
    line = f"below {COPY_THRESHOLD:g} two clips are copies"
    if within["median"] is None or within["least"] is None:
        return f"{line}; most clips have nothing alike in their own split"
    return (
        f"{line}; the most alike take in its own split leaves {within['median']:.3f} unexplained "
        f"in the median, {within['median'] / COPY_THRESHOLD:.0f} times as much, and never less "
        f"than {within['least']:.3f}"
    )


def _quantiles(values: "np.ndarray") -> dict[str, float | None]:
    import numpy as np

    if len(values) == 0:
        return dict.fromkeys(_QUANTILES)
    # No interpolation: between a number and infinity there is nothing.
    found = np.quantile(values, list(_QUANTILES.values()), method="lower").tolist()
    return {
        name: value if math.isfinite(value) else None
        for name, value in zip(_QUANTILES, found, strict=True)
    }


def leakage(audit: "Audit", allowed: frozenset[str]) -> list[str]:
    """What makes the set leak, in words; nothing where it does not."""
    reasons = []
    if audit.leaks:
        reasons.append("copies or interpolated clips")
    reasons += [
        f"{kind}s in several splits"
        for kind, groups in (("signer", audit.signers), ("session", audit.sessions))
        if groups and kind not in allowed
    ]
    return reasons


def _verdict(audit: "Audit", allowed: frozenset[str]) -> str:
    reasons = leakage(audit, allowed)
    if not reasons:
        return "no leakage found"
    line = f"leakage: {', '.join(reasons)}"
    if audit.leaks:
        line += "; --fix OUT writes a file without the leaking clips"
    elif "session" not in allowed or "signer" not in allowed:
        line += "; divide anew with slrctl data split --by signer, or --allow it"
    return line


def show_fixed(console: Console, audit: "Audit", fixed: "Fixed", path: Path) -> None:
    changed = [
        f"{sum(counts.values()):,} clips {word} "
        f"({', '.join(f'{count:,} of {split}' for split, count in counts.items())})"
        for word, counts in (("dropped", fixed.dropped), ("moved", fixed.moved))
        if counts
    ]
    lines = [
        f"{len(fixed.clips):,} clips written to {path}: {'; '.join(changed) or 'nothing to change'}"
    ]
    if fixed.remaining.leaks:
        lines.append(
            f"warning: {len(fixed.remaining.leaks):,} leaks are left; run the audit on that file"
        )
    if fixed.remaining.signers or fixed.remaining.sessions:
        lines.append(
            "signers and sessions are as they were: whole people are moved by slrctl data split"
        )
    print_lines(console, lines)


def audit_facts(audit: "Audit", allowed: frozenset[str]) -> dict[str, Any]:
    from slrctl.core.data.audit.copies import COPY_THRESHOLD, INTERPOLATION_THRESHOLD

    return {
        "parts": audit.sizes,
        "leakage": bool(leakage(audit, allowed)),
        "reasons": leakage(audit, allowed),
        "allowed": sorted(allowed),
        "counts": {kind: audit.count(kind) for kind in _KINDS},
        "pairs": [
            {
                "kind": leak.kind,
                "unexplained": leak.unexplained,
                "clips": [
                    {
                        "clip_id": audit.clips[row].clip_id,
                        "part": audit.split(row),
                        "gloss": audit.clips[row].gloss,
                    }
                    for row in leak.rows
                ],
            }
            for leak in audit.leaks
        ],
        "signers": {group.name: group.counts for group in audit.signers},
        "sessions": {group.name: group.counts for group in audit.sessions},
        "missing_glosses": audit.missing,
        "id_hints": [
            {"made": audit.clips[hint.changed].clip_id, "origin": audit.clips[hint.origin].clip_id}
            for hint in audit.hints
        ],
        "copy_threshold": COPY_THRESHOLD,
        "lineage_threshold": INTERPOLATION_THRESHOLD,
        "unexplained": {
            "edges": list(_EDGES[:-1]),
            "across": {"counts": _histogram(audit.across), **_quantiles(audit.across)},
            "within": {"counts": _histogram(audit.within), **_quantiles(audit.within)},
        },
    }
