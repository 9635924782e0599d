"""The private names of Faust and aiokafka the chassis and the Kafka log lean on.

Not a test of theirs: when an upgrade breaks one of these, what stands in the
chassis module named beside it has to be looked at again. Releases are pinned in
pyproject.toml; docs/design-notes/001-faust-chassis.md tells why each is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Subscription, SubscriptionState, TopicPartitionState
from aiokafka.protocol import fetch
from aiokafka.record.util import calc_crc32c
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as KafkaConsumer
from mode.threads import ServiceThread

from driftline_services.chassis.consumer import BatchConsumer
from driftline_services.chassis.kafka import BatchThread


def source(function: Callable[..., object]) -> str:
    return inspect.getsource(function)


def parameters(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    "name",
    [
        "_new_transport",  # app.py: the transport by our URL, not by Faust's registry
        "_new_producer_transport",
        "_new_conductor",
        "_create_directories",
    ],
)
def test_the_app_makes_its_parts_through_these(name: str) -> None:
    assert parameters(getattr(App, name)) == ["self"]


def test_the_conductor_compiles_its_handler_in_its_constructor() -> None:
    assert "self._compile_message_handler()" in source(Conductor.__init__)


def test_the_app_hands_the_conductors_handler_to_the_consumer() -> None:
    assert "callback=self.topics.on_message" in source(App._new_consumer)


def test_the_conductor_subscribes_through_the_consumer() -> None:
    assert "self.app.consumer.subscribe(" in source(Conductor._subscriber.fun)


def test_drained_messages_come_from_getmany_and_go_to_the_callback() -> None:
    drain = source(Consumer._drain_messages)
    assert "getmany(timeout=" in drain
    assert "callback(message)" in drain


def test_messages_below_the_read_offset_would_be_dropped() -> None:
    drain = source(Consumer._drain_messages)  # why consumer.NothingRead is there
    assert "get_read_offset = self._read_offset.__getitem__" in drain
    assert "if r_offset is None or offset >= r_offset:" in drain


def test_streams_resume_after_perform_seek_and_need_no_committed_offset() -> None:
    resume = source(Recovery._resume_streams)
    assert resume.index("consumer.perform_seek()") < resume.index("consumer.resume_flow()")
    assert resume.index("app.flow_control.resume()") < resume.index("consumer.resume_flow()")


def test_the_flow_events_of_the_consumer_are_there() -> None:
    init = source(Consumer.__init__) + source(Consumer.resume_flow)
    for name in ("can_resume_flow", "suspend_flow", "flow_active", "_committed_offset"):
        assert name in init


def test_before_shutdown_comes_while_the_consumer_still_runs() -> None:
    stop = source(App.on_stop)
    assert "_stop_consumer" in stop
    assert "on_before_shutdown.send()" in stop


@pytest.mark.parametrize(
    "name", ["_fetch_records", "_create_worker_consumer", "_ensure_consumer", "__post_init__"]
)
def test_the_consumer_thread_has(name: str) -> None:
    assert callable(getattr(AIOKafkaConsumerThread, name))
    assert issubclass(BatchThread, AIOKafkaConsumerThread)


def test_the_consumer_thread_stops_its_consumer_in_on_thread_stop() -> None:
    assert "await self._consumer.stop()" in source(AIOKafkaConsumerThread.on_thread_stop)


def test_the_consumer_thread_is_made_by_a_method_and_has_a_loop_of_its_own() -> None:
    assert "_new_consumer_thread" in vars(KafkaConsumer)
    assert "self.thread_loop" in source(ServiceThread.__init__)
    assert "self._rebalance_listener = " in source(AIOKafkaConsumerThread.__post_init__)


def test_the_listener_reports_the_generation_between_revoked_and_assigned() -> None:
    listener = source(KafkaConsumer.RebalanceListener.on_partitions_assigned)
    assert listener.index("consumer_generation_id = ") < listener.index("on_partitions_assigned(ensure")


def test_fetched_records_asks_the_partitions_by_truth_and_membership() -> None:
    # kafka.Wanted: consulted when records are handed over; an empty set would mean all
    assert "if partitions and tp not in partitions:" in source(Fetcher.fetched_records)


def test_nothing_is_awaited_between_the_drain_and_the_return_of_the_records() -> None:
    body = source(Fetcher.fetched_records)
    after_drain = body[
        body.index("drained[tp] = records") : body.index("waiter = self._create_fetch_waiter()")
    ]
    assert "await" not in after_drain
    assert "await" not in source(AIOKafkaConsumerThread._fetch_records).split("finally:")[1]


def test_the_position_behind_the_records_can_be_read() -> None:
    assert isinstance(SubscriptionState.subscription, property)
    assert isinstance(Subscription.assignment, property)
    assert isinstance(TopicPartitionState.position, property)


def test_a_seek_is_carried_out_at_once() -> None:
    assert not inspect.iscoroutinefunction(aiokafka.AIOKafkaConsumer.seek)
    assert not inspect.iscoroutinefunction(Fetcher.seek_to)
    assert not inspect.iscoroutinefunction(aiokafka.AIOKafkaConsumer.subscribe)


def test_an_out_of_range_position_is_an_error_without_a_reset_strategy() -> None:
    assert "Errors.OffsetOutOfRangeError({tp: fetch_offset})" in source(Fetcher)


def test_idle_time_is_counted_from_the_last_fetch() -> None:
    # kafka.KafkaConsumer._stay_alive
    assert "self._last_fetch_ended" in source(SubscriptionState.fetcher_idle_time.fget)
    assert "fetcher_idle_time" in source(GroupCoordinator._heartbeat_routine)


def test_the_longest_wait_of_a_fetch_is_read_when_the_consumer_starts() -> None:
    assert "self._fetch_max_wait_ms" in source(aiokafka.AIOKafkaConsumer.start)


def test_listing_topics_names_none_and_so_creates_none() -> None:
    assert "fetch_all_metadata" in source(aiokafka.AIOKafkaConsumer.topics)


@pytest.mark.parametrize(
    "name",
    [
        "getmany",
        "perform_seek",
        "commit",
        "on_buffer_full",
        "on_buffer_drop",
        "verify_event_path",
        "_to_message",
    ],
)
def test_what_the_batch_consumer_replaces_is_there_to_be_replaced(name: str) -> None:
    assert name in vars(Consumer)
    assert name in vars(BatchConsumer)


def test_fetches_pass_through_send_of_the_client_that_the_consumer_has_from_its_birth() -> None:
    # log.kafka.guarding: the answer of a fetch is mended on its way
    assert parameters(AIOKafkaClient.send) == ["self", "node_id", "request", "group"]
    assert "self._client = AIOKafkaClient(" in source(aiokafka.AIOKafkaConsumer.__init__)
    assert "response = await self._client.send(node_id, request)" in source(Fetcher._proc_fetch_request)
    assert "FetchRequest(" in source(Fetcher._get_actions_per_node)


def test_the_records_of_a_partition_stand_last_in_the_answer_of_a_fetch() -> None:
    body = source(Fetcher._proc_fetch_request)
    assert "for topic, partitions in response.topics:" in body
    assert "records = MemoryRecords(part_data[-1])" in body
    answers = [kind for name, kind in vars(fetch).items() if name.startswith("FetchResponse_v")]
    assert answers
    for kind in answers:
        partitions = kind.SCHEMA.fields[kind.SCHEMA.names.index("topics")].array_of.fields[1].array_of
        assert partitions.names[-1] == "message_set"


def test_a_checksum_is_compared_before_a_batch_is_decompressed() -> None:
    # log.kafka.unpacking leaves a batch with a wrong one as it is
    unpack = source(PartitionRecords._unpack_records)
    assert unpack.index("validate_crc()") < unpack.index("for record in next_batch")
    assert calc_crc32c(b"123456789") == 0xE3069283


def test_at_most_so_many_records_are_handed_out_at_a_time() -> None:
    names = parameters(AIOKafkaConsumerThread._fetch_records)
    assert names == ["self", "consumer", "active_partitions", "timeout", "max_records"]
    assert "max_records=max_records" in source(AIOKafkaConsumerThread._fetch_records)
