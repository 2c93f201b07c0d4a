"""Find what one part of a set of clips tells of another: leaks that flatter a score."""

from slrctl.core.data.audit.duplicates import COPY_THRESHOLD, Leak
from slrctl.core.data.audit.fixing import Fixed, fix, with_own_ids
from slrctl.core.data.audit.lineage import LINEAGE_THRESHOLD
from slrctl.core.data.audit.reading import PartFile, ReadParts, part_file, read_parts
from slrctl.core.data.audit.report import Audit, audit_parts

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
