"""What can be tuned in the chassis, with the figure behind each default.

Invariant: every duration is in seconds, every size in bytes; a combination that
cannot work is refused here, before anything is started.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ChassisSettings:
    """Limits and time-outs of one worker."""

    session_timeout: float = 10.0  # a killed member's partitions move after this long
    heartbeat_interval: float = 2.0
    rebalance_timeout: float = 30.0  # a member that has not let go by then is left behind
    request_timeout: float = 20.0  # a JoinGroup waits for the slowest member
    answer_timeout: float = 4.0  # of any other request, before its connection is given up as dead
    max_poll_interval: float = 60.0
    drain_timeout: float = 20.0  # the apply in hand must end within this, else the worker crashes
    exit_timeout: float = 15.0  # an orderly end that hangs is cut short after this
    commit_interval: float = 2.0  # between offset hints: they only feed lag displays
    topic_poll_interval: float = 1.0  # how often a topic that is missing is looked for
    fetch_wait: float = 0.1  # a fetch in flight delays re-opened partitions of the same broker
    poll_wait: float = 0.1
    fetch_bytes: int = 2 << 20  # per partition and fetch: the largest batch, one record aside
    answer_bytes: int = 4 << 20  # per fetch over all partitions: 16 MiB at once are copied past the caches
    lane_batches: int = 3  # queued per partition: one to apply while the next is fetched
    lane_bytes: int = 4 << 20
    buffer_bytes: int = 64 << 20  # queued over all partitions
    stream_fetches: int = 1  # between the fetch and the lanes

    def __post_init__(self) -> None:
        for name in (
            "fetch_bytes",
            "answer_bytes",
            "lane_batches",
            "lane_bytes",
            "buffer_bytes",
            "stream_fetches",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.session_timeout > self.request_timeout:
            raise ConfigError(
                f"session_timeout {self.session_timeout} s exceeds request_timeout "
                f"{self.request_timeout} s; raise request_timeout"
            )
        if self.drain_timeout >= self.rebalance_timeout:
            raise ConfigError(
                f"drain_timeout {self.drain_timeout} s must stay below rebalance_timeout "
                f"{self.rebalance_timeout} s, or the group gives partitions away before they are released"
            )
