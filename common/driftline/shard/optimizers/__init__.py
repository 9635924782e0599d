"""Optimizers: one file each, found by the `kind` in a table's spec."""

from driftline.shard.optimizers.adagrad import Adagrad
from driftline.shard.optimizers.adam import Adam
from driftline.shard.optimizers.base import Optimizer, make_optimizer
from driftline.shard.optimizers.ftrl import Ftrl
from driftline.shard.optimizers.rowwise_adagrad import RowwiseAdagrad
from driftline.shard.optimizers.sgd import Sgd

KINDS: dict[str, type[Optimizer]] = {
    "adagrad": Adagrad,
    "adam": Adam,
    "ftrl": Ftrl,
    "rowwise_adagrad": RowwiseAdagrad,
    "sgd": Sgd,
}

__all__ = ["KINDS", "Adagrad", "Adam", "Ftrl", "Optimizer", "RowwiseAdagrad", "Sgd", "make_optimizer"]
