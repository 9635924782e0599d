"""The learner behind `driftline demo`: an online two-table retrieval model fed by a stream of events.

Invariant: nothing here knows Kafka, Redis or the aggregator. The learner sees two
`tables.Table`s; whether they are arrays in this process or the whole pipeline, it
does the same arithmetic in the same order.
"""
