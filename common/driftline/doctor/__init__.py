"""Looks a deployment over before it goes wrong, and says what to do.

Invariant: the doctor reads and never changes anything, and shows no secret. Collectors
(`…_facts`, `look`, `collect`) are thin; verdicts are pure functions of what they bring.
"""

from driftline.doctor.checks import CHECKS, Check, Patient, examine
from driftline.doctor.findings import Finding, Report, Severity
from driftline.doctor.roles import Role

__all__ = ["CHECKS", "Check", "Finding", "Patient", "Report", "Role", "Severity", "examine"]
