"""Versions of embedding tables on object storage: deltas, committed atomically, readable by row.

`open_store` and `open_repository` give a `Repository`; `DeltaBuffer` collects row states,
`seal_part` makes a shard of the next version of them, `commit` commits it; `TableReader`
reads. See docs/explanation/versions.md.
"""
