"""Faults made to order, and a judge that shares no code with what it judges.

Invariant: every choice of a run (which fault, when, how long, at which byte) comes
from its seed; what the machine adds is timing. Nothing here knows a test framework,
so the long runs (`python -m tests.chaos`) and the short ones in pytest are the same.
"""
