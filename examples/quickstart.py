"""Create a table, read rows, push gradients, read back: run it where `driftline up` runs."""

import numpy as np

import driftline

with driftline.connect() as client:
    items = client.create_table(driftline.TableSpec("items", dim=4, shards=2))

    ids = np.array([7, 42, 7_000_000_000])  # any whole numbers from 0 to 2^64 - 1
    rows = items.get(ids)  # an id never seen has a reproducible initial row
    gradients = rows.vectors - 1.0  # a loss that pulls every row towards ones

    items.push(ids, gradients, read=rows.read)
    trained = items.get(ids, read_your_writes=True)
    print(rows.found, trained.found)
    print(np.abs(trained.vectors - 1.0).mean() < np.abs(gradients).mean())
