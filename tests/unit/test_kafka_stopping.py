from __future__ import annotations

import asyncio

import pytest

from driftline.log.kafka.client import stop


class Client:
    """One of aiokafka's; `ending` is what becomes of its `stop`."""

    def __init__(self, ending: BaseException | None = None) -> None:
        self._ending = ending
        self.hanging, self.cancelled = asyncio.Event(), False

    async def stop(self) -> None:
        if self._ending is not None:
            raise self._ending


class Hanging(Client):
    async def stop(self) -> None:
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_cancellation_inside_the_client_does_not_look_like_one_of_the_caller() -> None:
    await stop(Client(asyncio.CancelledError()))


async def test_what_else_goes_wrong_is_told() -> None:
    with pytest.raises(OSError, match="gone"):
        await stop(Client(OSError("gone")))


async def test_a_caller_that_is_cancelled_takes_the_stop_along() -> None:
    client = Hanging()
    stopping = asyncio.create_task(stop(client))
    await client.hanging.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await asyncio.sleep(0)
    assert client.cancelled
