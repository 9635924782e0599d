"""Does Redis hold exactly what the log says? Replays the log through the core and compares."""

from driftline.audit.run import audit_table
from driftline.audit.starting import AuditVersions
from driftline.audit.verdict import Difference, ShardAudit, TableAudit

__all__ = ["AuditVersions", "Difference", "ShardAudit", "TableAudit", "audit_table"]
