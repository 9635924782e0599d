"""The drift monitor: row states in, verdicts out; and what becomes of an alarm."""
