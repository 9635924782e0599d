"""`python -m driftline.servers`: a real Kafka broker and Redis on loopback until Ctrl-C.

Invariant: when it returns, both are down; data stays in the directory given.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from driftline.errors import DriftlineError
from driftline.servers.kafka import KafkaBroker, find_jars
from driftline.servers.redis import RedisServer

_STOP = {signal.SIGINT, signal.SIGTERM}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m driftline.servers", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("run/servers"), help="where their data lives")
    parser.add_argument("--kafka-jars", type=Path, help="default: $DRIFTLINE_TOOLS/kafka")
    parser.add_argument("--kafka-port", type=int, help="default: a free one")
    parser.add_argument("--redis-port", type=int, help="default: a free one")
    options = parser.parse_args(arguments)
    # Blocked, then waited for: a signal during start-up is kept, not lost between two steps.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        with ExitStack() as stack:
            redis = stack.enter_context(RedisServer(options.data / "redis", port=options.redis_port))
            jars = options.kafka_jars if options.kafka_jars is not None else find_jars()
            kafka = stack.enter_context(KafkaBroker(jars, options.data / "kafka", port=options.kafka_port))
            print(f"export DRIFTLINE_LOG_URL={kafka.url}")
            print(f"export DRIFTLINE_REDIS_URL={redis.url}")
            print(f"# data in {options.data}; Ctrl-C stops both", flush=True)
            signal.sigwait(_STOP)
            print("# stopping", flush=True)
    except DriftlineError as error:
        print(f"driftline.servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
