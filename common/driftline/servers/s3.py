"""An S3-compatible store on loopback: versitygw over a directory.

Invariant: objects are plain files under `data_dir`/objects, so a bucket is a
directory, and what was acknowledged survives a kill of the gateway.
"""

from __future__ import annotations

import os
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from driftline.errors import ConfigError
from driftline.servers.child import Command
from driftline.servers.local import HOST, LocalServer

_HEALTH = "/driftline-health"


class S3Gateway(LocalServer):
    """One gateway on a data directory, with a single account and a secret of its own.

    Parameters
    ----------
    data_dir: where buckets and their metadata live; made when missing.
    port: fixed port; None takes a free one and keeps it.
    executable: the `versitygw` to run; None looks for one, see `find_versitygw`.
    """

    name = "versitygw"
    region = "us-east-1"
    access_key = "driftline"

    def __init__(self, data_dir: Path, *, port: int | None = None, executable: Path | None = None) -> None:
        super().__init__(data_dir, port=port)
        self.secret_key = secrets.token_hex(16)
        self._executable = executable

    @property
    def endpoint(self) -> str:
        """Endpoint URL for S3 clients (path-style buckets), stable over restarts."""
        return f"http://{HOST}:{self.port}"

    def create_bucket(self, name: str) -> str:
        """Make sure bucket `name` (3 to 63 lower-case letters, digits, dashes) exists; return its URL."""
        (self.objects / name).mkdir(parents=True, exist_ok=True)
        return f"s3://{name}"

    @property
    def objects(self) -> Path:
        """The directory whose folders are the buckets."""
        return self.data_dir / "objects"

    def _command(self, ports: Sequence[int]) -> Command:
        executable = self._executable if self._executable is not None else find_versitygw()
        # Metadata goes beside the objects, not into extended attributes: overlay and tmpfs may lack them.
        metadata = self.data_dir / "metadata"
        self.objects.mkdir(parents=True, exist_ok=True)
        metadata.mkdir(exist_ok=True)
        return Command(
            [
                *(str(executable), "--port", f"{HOST}:{ports[0]}", "--region", self.region),
                *("--health", _HEALTH, "--quiet"),
                *("posix", "--sidecar", str(metadata), str(self.objects)),
            ],
            # by environment: every user of the machine can read arguments
            environment={"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key},
        )

    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        address = f"http://{HOST}:{ports[0]}{_HEALTH}"
        try:
            with urllib.request.urlopen(address, timeout=2.0) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def find_versitygw() -> Path:
    """Return `versitygw` from $DRIFTLINE_TOOLS/bin, else from PATH; ConfigError when there is neither."""
    tools = os.environ.get("DRIFTLINE_TOOLS")
    found = shutil.which("versitygw", path=str(Path(tools) / "bin")) if tools else None
    found = found or shutil.which("versitygw")
    if found is None:
        raise ConfigError(
            "no versitygw found in $DRIFTLINE_TOOLS/bin or on PATH: `make tools` builds it "
            "(or: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0)"
        )
    return Path(found)
