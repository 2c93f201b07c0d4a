"""Find what one part of a set of clips tells of another: leaks that flatter a score."""

from slrctl.core.data.audit.duplicates import COPY_THRESHOLD, LINEAGE_THRESHOLD, Leak
from slrctl.core.data.audit.report import (
    Audit,
    Fixed,
    PartFile,
    ReadParts,
    audit_parts,
    fix,
    part_file,
    read_parts,
    with_own_ids,
)

__all__ = [
    "COPY_THRESHOLD",
    "LINEAGE_THRESHOLD",
    "Audit",
    "Fixed",
    "Leak",
    "PartFile",
    "ReadParts",
    "audit_parts",
    "fix",
    "part_file",
    "read_parts",
    "with_own_ids",
]
