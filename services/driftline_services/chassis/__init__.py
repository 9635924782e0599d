"""Faust as the chassis of the stream services: batches in, positions owned by the handler."""

from driftline_services.chassis.app import ChassisApp, make_app
from driftline_services.chassis.core import Chassis
from driftline_services.chassis.handler import Batch, Flow, Handler, TopicPartition
from driftline_services.chassis.settings import ChassisSettings
from driftline_services.chassis.waiting import patiently
from driftline_services.chassis.worker import run_worker, serve

__all__ = [
    "Batch",
    "Chassis",
    "ChassisApp",
    "ChassisSettings",
    "Flow",
    "Handler",
    "TopicPartition",
    "make_app",
    "patiently",
    "run_worker",
    "serve",
]
