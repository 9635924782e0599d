"""Looks a deployment over before it goes wrong, and says what to do.

Invariant: the doctor reads and never changes anything, and shows no secret. Collectors
(`…_facts`, `look`, `collect`) are thin; verdicts are pure functions of what they bring.
`checks.examine` runs them all; nothing is imported here, for that loads Kafka's client.
"""
