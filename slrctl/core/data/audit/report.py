"""The audit of a set in parts: copies, made clips, shared people, missing classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slrctl.core.clip import Clip
from slrctl.core.data.audit.duplicates import Leak, exact_copies, near_copies, nearest_takes
from slrctl.core.data.audit.fingerprint import fingerprint
from slrctl.core.data.audit.framed import FramedClips, in_image_frame
from slrctl.core.data.audit.groups import (
    NameHint,
    SharedGroup,
    missing_classes,
    name_hints,
    shared_groups,
)
from slrctl.core.data.audit.lineage import interpolated


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found in the clips of several parts; rows count the clips as they were given.

    `across` holds for each clip the least difference to a clip of another part, `within` the same
    for a sample of the clips and their own part; both are inf where nothing is alike.
    """

    clips: Sequence[Clip]
    parts: Sequence[str]
    leaks: list[Leak]
    signers: list[SharedGroup]
    sessions: list[SharedGroup]
    missing: dict[str, list[str]]
    hints: list[NameHint]
    across: Float[np.ndarray, " N"]
    within: Float[np.ndarray, " M"]

    def count(self, kind: str) -> int:
        return sum(leak.kind == kind for leak in self.leaks)


def audit_parts(clips: Sequence[Clip], parts: Sequence[str]) -> Audit:
    """Look for anything by which one part of a set tells of another.

    Args:
        clips: the clips of all parts.
        parts: for each clip the name of its part.

    Raises:
        ValueError: there are fewer than two parts.
    """
    names = list(dict.fromkeys(parts))
    if len(names) < 2:
        raise ValueError(f"an audit compares parts, but all clips are in {names}")
    numbers = np.array([names.index(part) for part in parts])
    framed = FramedClips(clips)
    prints = fingerprint(framed)
    exact = exact_copies(clips, numbers)
    near, across = near_copies(framed, prints, numbers)
    known = {(leak.first, leak.second) for leak in exact}
    leaks = [*exact]
    for leak in sorted(near, key=lambda leak: leak.unexplained):
        if (leak.first, leak.second) not in known:
            known.add((leak.first, leak.second))
            leaks.append(leak)
    glosses = [clip.gloss for clip in clips]
    copied = {row for pair in known for row in pair}
    made = interpolated(FramedClips(clips, in_image_frame), glosses, numbers)
    made = [leak for leak in made if leak.first not in copied]
    across[list({row for leak in exact for row in leak[1:3]})] = 0.0
    return Audit(
        clips=clips,
        parts=parts,
        leaks=[*leaks, *sorted(made, key=lambda leak: leak.unexplained)],
        signers=shared_groups(clips, parts, "signer"),
        sessions=shared_groups(clips, parts, "session"),
        missing=missing_classes(clips, parts),
        hints=name_hints(clips, parts),
        across=across,
        within=nearest_takes(framed, prints, numbers),
    )
