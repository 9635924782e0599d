"""Running a worker: what is left behind, and what happens when an end hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from driftline.errors import ConfigError, PositionError
from driftline_services.chassis import Batch, Flow, TopicPartition, make_app, serve


class Idle:
    """A handler that does nothing."""

    def bind(self, flow: Flow) -> None: ...

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def apply(self, batch: Batch) -> None: ...

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        raise error

    async def release(self, partitions: frozenset[TopicPartition]) -> None: ...


async def test_serve_leaves_no_task_no_thread_and_no_file_behind(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    stop = asyncio.Event()
    app = make_app("g", f"local://{tmp_path / 'log'}", ["missing"], Idle())
    serving = asyncio.create_task(serve(app, stop))
    while not app.consumer.started:
        await asyncio.sleep(0)
    stop.set()
    await serving
    assert asyncio.all_tasks() == {asyncio.current_task()}
    left = {thread.name for thread in threading.enumerate()} - before
    assert not {
        name for name in left if not name.startswith("asyncio_")
    }  # the loop's own, joined when it closes
    assert os.listdir(tmp_path) == ["log"]


async def test_serve_leaves_the_working_directory_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    stop = asyncio.Event()
    stop.set()
    await serve(make_app("g", f"local://{tmp_path / 'log'}", ["missing"], Idle()), stop)
    assert os.listdir(tmp_path / "cwd") == []  # Faust would make its data directories here


async def test_a_cancelled_serve_ends_in_order_all_the_same(tmp_path: Path) -> None:
    app = make_app("g", f"local://{tmp_path / 'log'}", ["missing"], Idle())
    serving = asyncio.create_task(serve(app, asyncio.Event()))
    while not app.consumer.started:
        await asyncio.sleep(0)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    assert app.consumer.should_stop
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_group_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="group"):
        make_app("", f"local://{tmp_path}", [], Idle())


async def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="redis://x"):
        make_app("g", "redis://x", [], Idle())


@pytest.mark.parametrize("what", ["a crash", "a signal"])
def test_an_end_that_hangs_is_cut_short_with_status_1(tmp_path: Path, what: str) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import asyncio, os, signal, sys
            from contextlib import asynccontextmanager
            from driftline_services.chassis import ChassisSettings, make_app, run_worker

            class Handler:
                def bind(self, flow):
                    if {what!r} == "a crash":
                        asyncio.get_running_loop().call_later(0.1, flow.crash, RuntimeError("boom"))
                    else:
                        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)

            @asynccontextmanager
            async def build():
                settings = ChassisSettings(exit_timeout=0.2, drain_timeout=0.1)
                yield make_app("g", "local://{tmp_path / "log"}", ["missing"], Handler(), settings=settings)
                await asyncio.Event().wait()

            sys.exit(run_worker(build))
            """
        )
    )
    finished = subprocess.run([sys.executable, str(script)], check=False, timeout=30, capture_output=True)
    assert finished.returncode == 1
    assert finished.stdout == b""
