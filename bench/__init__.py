"""Benchmarks: one file per question, ratios to a floor or a peer measured in the same run."""
