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


class ObjectStoreUnavailableError(RetryError):
    """The object store did not answer, or could not write; the object may or may not be there."""

    code = "objects.unavailable"


class NotDeployedError(RetryError):
    """A version is not readable beside the live rows: not deployed, or still being loaded."""

    code = "version.not_deployed"


class RestoreOvertakenError(RetryError):
    """Another restore came first, and this one changed nothing."""

    code = "restore.overtaken"


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


class ObjectExistsError(InputError):
    """An object of that key exists, and objects are never overwritten."""

    code = "objects.exists"

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} exists already; objects are never overwritten")
        self.key = key


class UnknownVersionError(InputError):
    """No version, branch or tag goes by that reference; `nearest` are names that resemble it."""

    code = "version.unknown"

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message + (f"; nearest: {', '.join(nearest)}" if nearest else ""))
        self.nearest = nearest


class VersionRejectedError(InputError):
    """A barrier became no version: a gate said no, or what it named does not exist."""

    code = "version.rejected"

    def __init__(self, message: str, op: int) -> None:
        super().__init__(message)
        self.op = op


class VersionUnloadableError(InputError):
    """A shard cannot load the version it is to be restored to: an object is missing or damaged."""

    code = "version.unloadable"


class LossyVersionError(InputError):
    """A version is stored in a lossy tier, and what was asked for needs its bits."""

    code = "version.lossy"


class VersionHeldError(InputError):
    """Something still holds a version that is to be removed, or a name that is to be given."""

    code = "version.held"


class OpRefusedError(InputError):
    """The ops router refused an operation; `reason` is the stable dead-letter code."""

    code = "op.refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ConfigError(DriftlineError):
    """A setting is unknown, malformed or does not fit the deployment."""

    code = "config"


class PartitionCountError(ConfigError):
    """A topic exists with another number of partitions than the table has shards."""

    code = "config.partitions"


class StoreFormatError(ConfigError):
    """An object store holds something else than versions that this release reads."""

    code = "config.store_format"


class SigningKeyError(ConfigError):
    """This client's key is none of the deployment's: what it asks for is refused as forged."""

    code = "config.key"


class StateError(DriftlineError):
    """Log and store disagree in a way that must not be guessed away."""

    code = "state"


class FenceLostError(StateError):
    """Another writer moved this shard's position, or the store lost it: everything since is dropped."""

    code = "state.fence"


class PositionError(StateError):
    """The stored position does not fit the log: gap, recreated topic, or a log behind the store."""

    code = "state.position"


class ObjectMissingError(StateError):
    """An object that something refers to does not exist."""

    code = "objects.missing"

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} is missing; `driftline fsck` lists what needs it")
        self.key = key


class DamagedObjectError(StateError):
    """The bytes of an object are not those that were written."""

    code = "objects.damaged"

    def __init__(self, key: str, where: str, expected: str, found: str) -> None:
        super().__init__(
            f"object {key} is damaged, {where}: expected {expected}, found {found}; put back a copy of it"
        )
        self.key, self.where, self.expected, self.found = key, where, expected, found


class VersionRaceError(StateError):
    """Another writer has continued this branch: what was built on its old head is not committed."""

    code = "version.race"


class DeltaError(StateError):
    """The row states collected for a version do not add up to what the log says."""

    code = "version.delta"
