"""Does Redis hold exactly what the log says? Replays the log through the core and compares."""

from driftline.audit.run import audit_table
from driftline.audit.verdict import Difference, ShardAudit, TableAudit

__all__ = ["Difference", "ShardAudit", "TableAudit", "audit_table"]
