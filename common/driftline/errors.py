"""Every error driftline raises, in one tree grouped by what a caller does about it.

Invariant: each concrete error has a stable `code` that is never reused, and a
message that names the thing, its value and the way out.

    DriftlineError
    ├── RetryError     the same call may succeed later
    ├── InputError     change the data or the arguments
    ├── ConfigError    change a setting or the deployment
    └── StateError     stop: the log and the store disagree; a person must look
"""

from __future__ import annotations


class DriftlineError(Exception):
    """Base of everything driftline raises on purpose."""

    code = "driftline"


class RetryError(DriftlineError):
    """The same call may succeed later; nothing was lost."""

    code = "retry"


class LogUnavailableError(RetryError):
    """The log did not answer in time; an append may or may not have happened."""

    code = "log.unavailable"


class StoreUnavailableError(RetryError):
    """Redis did not answer, or the connection broke; a commit may or may not have happened."""

    code = "store.unavailable"


class TimedOutError(RetryError):
    """Something waited for did not happen within the time allowed."""

    code = "timeout"


class InputError(DriftlineError, ValueError):
    """The data or the arguments are wrong; the same call fails again."""

    code = "input"


class FrameError(InputError):
    """A frame cannot be decoded or breaks a rule; `reason` is the stable dead-letter code."""

    code = "frame"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class UnknownTableError(InputError):
    """No table of that name exists in this deployment."""

    code = "table.unknown"


class UnknownTopicError(InputError):
    """The log has no topic of that name, or no such partition."""

    code = "topic.unknown"


class RepeatedStepError(InputError):
    """A push repeats or goes back behind a step this producer has already sent."""

    code = "push.step"


class HalfMergedError(InputError):
    """A named producer asks for an acknowledgement of steps that are not cut into frames yet."""

    code = "push.half_merged"


class OffsetError(InputError):
    """The offset asked for is outside what the log holds."""

    code = "log.offset"


class ConfigError(DriftlineError):
    """A setting is unknown, malformed or does not fit the deployment."""

    code = "config"


class PartitionCountError(ConfigError):
    """A topic exists with another number of partitions than the table has shards."""

    code = "config.partitions"


class StateError(DriftlineError):
    """Log and store disagree in a way that must not be guessed away."""

    code = "state"


class FenceLostError(StateError):
    """Another writer moved this shard's position, or the store lost it: everything since is dropped."""

    code = "state.fence"


class PositionError(StateError):
    """The stored position does not fit the log: gap, recreated topic, or a log behind the store."""

    code = "state.position"
