"""Find what one part of a set of clips tells of another: leaks that flatter a score."""

from slrctl.core.data.audit.duplicates import COPY_THRESHOLD, Leak, digest
from slrctl.core.data.audit.lineage import LINEAGE_THRESHOLD
from slrctl.core.data.audit.report import Audit, audit_parts

__all__ = ["COPY_THRESHOLD", "LINEAGE_THRESHOLD", "Audit", "Leak", "audit_parts", "digest"]
