"""The settings of a deployment: what there is to set, where a value came from, the signing key.

Invariant: nothing here reads the environment, the working directory or a clock of
its own accord; `load_settings` is given them, and every value can name its source.
"""

from driftline.config.kafka import kafka_environment, kafka_security
from driftline.config.keys import new_key, signing_key
from driftline.config.loading import Loaded, Source, SourceKind, load_settings
from driftline.config.settings import Settings, redact_url, shown

__all__ = [
    "Loaded",
    "Settings",
    "Source",
    "SourceKind",
    "kafka_environment",
    "kafka_security",
    "load_settings",
    "new_key",
    "redact_url",
    "shown",
    "signing_key",
]
