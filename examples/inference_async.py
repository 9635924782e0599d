"""Rows for an inference service: concurrent reads, and what to do about ids without a row.

Reads go to Redis directly and need no signing key. Run it where `driftline up` runs.
"""

from __future__ import annotations

import asyncio

import numpy as np

import driftline
from driftline.errors import InputError


async def fill() -> None:
    """Stand in for a trainer: rows for ids 0 to 999."""
    async with driftline.connect_async() as client:
        table = await client.create_table(driftline.TableSpec("served", dim=16, shards=4))
        ids = np.arange(1000)
        await table.upsert(ids, np.ones((1000, 16), np.float32) * ids[:, None])
        await table.wait_readable()


async def serve() -> None:
    async with driftline.connect_async() as client:
        table = await client.table("served")

        # requests are independent: each read takes a connection of its own while it lasts
        answers = await asyncio.gather(*(table.get(np.arange(n, n + 50)) for n in range(0, 1000, 50)))
        print(sum(len(rows) for rows in answers), "rows, all found:", all(r.found.all() for r in answers))

        unknown = np.array([5, 5_000_000])
        initial = await table.get(unknown)  # what training would start from
        zeros = await table.get(unknown, on_missing="zero")
        masked = await table.get(unknown, on_missing="mask")  # NaN, to be seen and replaced
        print("found", initial.found)
        print("zero", zeros.vectors[1, :3], "mask", masked.vectors[1, :3])
        try:
            await table.get(unknown, on_missing="raise")
        except InputError as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(fill())
    asyncio.run(serve())
