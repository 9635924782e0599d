"""What driftline promises under which failure, and the tests that show it.

Invariant: the table of docs/explanation/delivery-guarantee.md is generated from this
list (`python -m tests.unit.test_docs`), and a test of it that does not exist fails the
suite. A promise without a test cannot be entered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shown:
    """A test that shows a guarantee; `how`: on what, where that is not plain from its place."""

    test: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What happens under a failure."""

    failure: str
    happens: str
    shown: tuple[Shown, ...]

    def __post_init__(self) -> None:
        assert self.shown, f"{self.failure}: no test shows it"


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "`kill -9` of a trainer",
        "What the log acknowledged is applied, the rest is not. Named and resumed from its checkpoint, it repeats steps without effect.",
        (
            Shown(
                "tests/chaos/test_kills.py::test_kills_of_the_trainer_that_goes_on_from_its_last_checkpoint"
            ),
            Shown(
                "tests/integration/test_bit_equality.py::test_a_trainer_back_from_an_older_checkpoint_repeats_steps_without_effect"
            ),
            Shown(
                "tests/unit/test_examples.py::test_a_killed_trainer_that_resumes_gives_the_bits_of_one_that_was_not"
            ),
        ),
    ),
    Guarantee(
        "`kill -9` of an aggregator",
        "Another one, or itself restarted, reads the position from Redis and goes on there.",
        (
            Shown("tests/chaos/test_kills.py::test_kills_of_the_aggregator"),
            Shown(
                "tests/integration/test_workers.py::test_when_one_of_two_workers_is_killed_the_other_takes_its_shards_over"
            ),
        ),
    ),
    Guarantee(
        "`kill -9` of Redis",
        "The aggregator waits and connects again; a transaction whose reply was lost is settled by reading the position.",
        (
            Shown("tests/chaos/test_kills.py::test_kills_of_redis"),
            Shown("tests/integration/test_servers.py::test_redis_keeps_what_it_acknowledged"),
        ),
    ),
    Guarantee(
        "`kill -9` of the broker",
        "Publishers and the aggregator wait and go on; no rebalance is needed.",
        (
            Shown("tests/chaos/test_kills.py::test_kills_of_the_broker"),
            Shown(
                "tests/conformance/test_log_kafka.py::test_a_broker_killed_and_restarted_costs_errors_but_no_records"
            ),
            Shown("tests/conformance/test_consumer_outage.py::test_a_worker_outlives_its_broker"),
            Shown(
                "tests/integration/test_kafka_cluster.py::test_the_leader_is_killed_while_a_trainer_pushes_and_an_aggregator_applies",
                "three brokers",
            ),
        ),
    ),
    Guarantee(
        "a crash between commit and publication",
        "The successor publishes the states again.",
        (
            Shown(
                "tests/unit/test_runner.py::test_states_that_were_committed_but_not_acknowledged_are_published_again",
                "unit",
            ),
        ),
    ),
    Guarantee(
        "any of them, at random, many times",
        "The same.",
        (Shown("tests/chaos/test_kills.py::test_kills_of_parts_chosen_at_random"),),
    ),
    Guarantee(
        "Redis loses its tail (power cut, failover)",
        "Position and rows go back together; the log is applied again from there: the same bits.",
        (
            Shown("tests/integration/test_redis_behind.py::test_rows_are_rebuilt_from_the_log_bit_for_bit"),
            Shown(
                "tests/integration/test_redis_cluster.py::test_a_failover_under_load_loses_nothing", "Cluster"
            ),
            Shown(
                "tests/integration/test_redis_servers.py::test_a_server_that_loses_the_tail_of_its_file_is_replayed_from_the_log",
                "one of several servers",
            ),
        ),
    ),
    Guarantee(
        "Redis comes back empty",
        "Rebuilt from offset 0 of the log. Noticed within a second, busy or idle.",
        (
            Shown(
                "tests/integration/test_redis_behind.py::test_a_worker_that_starts_on_an_empty_redis_rebuilds_it"
            ),
            Shown(
                "tests/integration/test_idle_loss.py::test_a_redis_emptied_while_nobody_trains_is_noticed_and_rebuilt",
                "idle",
            ),
        ),
    ),
    Guarantee(
        "Redis evicts, or keys are deleted by hand",
        "The shard stops: the count of rows, or of separate optimizer states, is not the position's. Seen at a takeover, and by an idle owner within a second. An audit lists the rows.",
        (
            Shown(
                "tests/integration/test_idle_loss.py::test_separate_state_that_is_deleted_while_nobody_trains_stops_its_shard_until_it_is_rebuilt",
                "idle owner",
            ),
            Shown("tests/simulation/test_lost_keys.py::test_nobody_takes_the_shard_over", "takeover"),
            Shown(
                "tests/unit/test_shard_store.py::test_rows_and_position_that_do_not_belong_together_are_never_taken",
                "takeover, unit",
            ),
            Shown("tests/unit/test_examples.py::test_the_tutorial_runs_as_it_is_shown", "audit"),
            Shown(
                "tests/integration/test_servers.py::test_redis_refuses_to_evict",
                "local Redis refuses to evict",
            ),
            Shown(
                "tests/integration/test_redis_memory.py::test_a_redis_that_evicts_is_refused_with_the_setting_to_change",
                "at start",
            ),
        ),
    ),
    Guarantee(
        "`kill -9` of the JSON router",
        "It forwards again from its stored position; shards know what they have seen.",
        (
            Shown(
                "tests/integration/test_ingest.py::test_killing_the_router_again_and_again_loses_nothing_and_repeats_nothing"
            ),
            Shown("tests/integration/test_ingest.py::test_messages_forwarded_a_second_time_change_nothing"),
        ),
    ),
    Guarantee(
        "Redis comes back empty long after JSON messages were applied",
        "They are forwarded again from the topic's begin; shards never forget what they have seen of it.",
        (
            Shown(
                "tests/integration/test_ingest.py::test_messages_forwarded_again_long_after_into_an_empty_redis_change_nothing"
            ),
        ),
    ),
    Guarantee(
        "a captured request for an operation is written to the ops topic again",
        "It is refused as `replayed_op`, by the router that saw it and by any later one.",
        (
            Shown(
                "tests/integration/test_op_requests.py::test_a_captured_request_is_not_carried_out_again_also_not_by_the_next_router"
            ),
        ),
    ),
    Guarantee(
        "`kill -9` while a shard moves to another Redis",
        "The successor finishes the move or starts it over; the fence keeps both sides apart.",
        (
            Shown(
                "tests/integration/test_redis_servers.py::test_an_aggregator_killed_at_any_point_of_moves_loses_nothing"
            ),
            Shown(
                "tests/simulation/test_moves.py::test_a_shard_on_the_move_is_at_each_moment_what_the_log_says",
                "simulation",
            ),
        ),
    ),
    Guarantee(
        "Redis is full (`maxmemory`, `noeviction`)",
        "Commits wait, `/readyz` says so, pushes wait in the log; it goes on when there is room.",
        (
            Shown(
                "tests/integration/test_redis_memory.py::test_a_full_redis_is_named_and_everything_resumes_once_there_is_room"
            ),
        ),
    ),
    Guarantee(
        "zombie aggregator: frozen, then awake after its shards went to another",
        "Its next transaction fails the fence; it drops what it had not committed.",
        (
            Shown("tests/unit/test_runner.py::test_an_owner_that_was_replaced_commits_nothing_more"),
            Shown(
                "tests/integration/test_workers.py::test_a_worker_frozen_beyond_its_session_does_no_harm_when_it_wakes"
            ),
            Shown(
                "tests/conformance/test_consumer_contract.py::test_a_frozen_worker_that_wakes_up_does_no_harm"
            ),
        ),
    ),
    Guarantee(
        "network cuts, lost replies, delays",
        "An append is repeated; a transaction is settled by the position.",
        (
            Shown(
                "tests/simulation/test_aggregator.py::test_every_commit_and_every_publication_is_what_the_log_says",
                "simulation, a thousand seeds of storms, every commit and publication held against the oracle",
            ),
            Shown(
                "tests/unit/test_shard_store.py::test_a_commit_whose_reply_is_lost_happens_exactly_once",
                "transactions whose reply is lost",
            ),
            Shown(
                "tests/unit/test_shard_store.py::test_a_lost_reply_behind_a_lost_fence_is_a_lost_fence",
                "transactions whose reply is lost",
            ),
            Shown(
                "tests/conformance/test_log_kafka.py::test_after_an_append_that_timed_out_the_next_one_goes_through_on_a_fresh_producer",
                "an append that timed out",
            ),
            Shown("tests/unit/test_publisher.py::test_a_later_frame_never_overtakes_a_failed_one", "unit"),
        ),
    ),
    Guarantee(
        "poison frames",
        "Refused with reason and origin, counted; the shard goes on; an audit refuses the same.",
        (
            Shown(
                "tests/integration/test_dead_letters.py::test_is_put_aside_with_reason_and_origin_and_the_shard_goes_on"
            ),
            Shown(
                "tests/integration/test_dead_letters.py::test_the_audit_refuses_what_the_aggregator_refused"
            ),
        ),
    ),
    Guarantee(
        "Kafka records that the client library cannot unpack: header names that are not UTF-8, batches that decompress to hundreds of MiB",
        "Refused with a reason, in bounded memory; shards, router, ingest and readers go on; an audit refuses the same.",
        (
            Shown(
                "tests/integration/test_kafka_poison.py::test_a_gradient_with_a_header_name_that_is_not_text_is_refused_by_the_shard_and_by_the_audit"
            ),
            Shown(
                "tests/integration/test_kafka_poison.py::test_an_op_with_a_header_name_that_is_not_text_is_refused_and_the_next_is_carried_out"
            ),
            Shown(
                "tests/integration/test_kafka_poison.py::test_an_ingest_message_with_a_header_name_that_is_not_text_is_refused_and_the_next_forwarded"
            ),
            Shown(
                "tests/integration/test_kafka_poison.py::test_a_batch_that_expands_to_hundreds_of_mebibytes_is_refused_and_costs_no_such_memory"
            ),
        ),
    ),
    Guarantee(
        "gradients that lead to NaN or infinity",
        "That row is left as it was and counted; the others of the frame are applied.",
        (
            Shown(
                "tests/integration/test_dead_letters.py::test_a_gradient_that_is_not_finite_leaves_its_own_row_alone_out"
            ),
        ),
    ),
    Guarantee(
        "steps sent again",
        "Counted, no effect.",
        (
            Shown(
                "tests/integration/test_bit_equality.py::test_a_trainer_back_from_an_older_checkpoint_repeats_steps_without_effect"
            ),
            Shown(
                "tests/unit/test_core_against_oracle.py::test_every_batch_leaves_the_rows_and_the_position_that_its_prefix_determines",
                "oracle",
            ),
        ),
    ),
    Guarantee(
        "an aggregator joins, leaves in order, or is added while traffic flows",
        "Shards move; applied work is committed before they are given back.",
        (
            Shown(
                "tests/integration/test_workers.py::test_a_second_worker_takes_its_share_of_the_shards_while_events_flow"
            ),
            Shown(
                "tests/integration/test_workers.py::test_a_worker_that_ends_in_order_leaves_nothing_to_be_done_again"
            ),
            Shown(
                "tests/integration/test_kafka_rebalance.py::test_a_second_worker_joins_and_leaves_under_load_without_a_trace_in_the_rows",
                "Kafka",
            ),
        ),
    ),
    Guarantee(
        "the gradients topic is deleted and made anew, or another cluster is read",
        "The shard stops: position beyond the end, or another fingerprint. While the topic is away, the aggregator waits for it and calls itself ready.",
        (
            Shown(
                "tests/unit/test_runner.py::test_a_log_that_does_not_continue_the_position_stops_the_shard",
                "unit",
            ),
            Shown(
                "tests/conformance/test_consumer_contract.py::test_a_position_outside_the_log_stops_the_worker"
            ),
            Shown(
                "tests/integration/test_kafka_positions.py::test_shards_whose_topic_was_made_anew_stop_and_name_the_remedy"
            ),
            Shown(
                "tests/integration/test_relog.py::test_rows_go_on_over_a_log_that_was_made_anew_once_it_is_given_a_new_generation",
                "going on from there",
            ),
        ),
    ),
    Guarantee(
        "retention overtakes a shard",
        "The shard stops and says which records are gone, and which start loses least: its rows as stored, or the newest version. `relog --from` begins there; where the log holds everything behind the version, nothing is lost.",
        (
            Shown(
                "tests/unit/test_runner.py::test_a_log_that_does_not_continue_the_position_stops_the_shard",
                "unit",
            ),
            Shown(
                "tests/integration/test_kafka_positions.py::test_a_shard_whose_position_retention_overtook_says_which_records_are_lost"
            ),
            Shown(
                "tests/integration/test_kafka_positions.py::test_a_shard_whose_records_expire_before_it_has_read_them_stops_and_the_others_go_on",
                "while it runs",
            ),
            Shown(
                "tests/conformance/test_consumer_losses.py::test_a_log_cut_off_under_a_running_worker_costs_it_that_partition_only"
            ),
            Shown(
                "tests/unit/test_starting.py::test_the_start_that_loses_least_is_named", "the verdict, unit"
            ),
        ),
    ),
    Guarantee(
        "Redis comes back empty and the log no longer begins at offset 0",
        "The shards stop and name the newest version. Begun from it, they are the same to the bit if the log holds everything behind it; else what is lost is said and asked, the next version is of what is live, and an audit begins there.",
        (
            Shown(
                "tests/integration/test_relog_from.py::test_a_version_and_the_log_behind_it_give_the_run_without_loss"
            ),
            Shown(
                "tests/integration/test_relog_from.py::test_records_that_are_lost_are_named_asked_for_and_given_up",
                "records lost",
            ),
            Shown(
                "tests/integration/test_relog_from.py::test_the_next_version_holds_what_redis_holds",
                "the next version",
            ),
            Shown(
                "tests/unit/test_starting.py::test_a_generation_goes_on_only_where_it_gives_the_same_states_again",
                "the verdict, unit",
            ),
        ),
    ),
    Guarantee(
        "a table's gradients topic is deleted",
        "Ops pass the table by, are put with the refused ones, and reach the other tables; readiness names the table.",
        (
            Shown(
                "tests/integration/test_kafka_positions.py::test_ops_pass_a_table_by_whose_topic_was_deleted_and_say_so"
            ),
            Shown("tests/unit/test_router.py::test_a_broker_that_is_away_is_waited_for_however_long", "unit"),
        ),
    ),
    Guarantee(
        "the disk under the embedded log is full",
        "An append is refused whole and tried again; the log goes on when there is room.",
        (
            Shown(
                "tests/conformance/test_log_local.py::test_a_full_disk_refuses_the_append_whole_and_the_log_recovers"
            ),
        ),
    ),
    Guarantee(
        "batches, caches and processors that differ",
        "The same bits.",
        (
            Shown(
                "tests/unit/test_core_against_oracle.py::test_the_result_depends_neither_on_batches_nor_on_what_is_cached",
                "oracle",
            ),
            Shown(
                "tests/unit/test_core_against_oracle.py::test_trimmed_rows_come_back_from_the_store_as_they_were",
                "oracle",
            ),
            Shown(
                "tests/integration/test_bit_equality.py::test_rows_after_training_through_the_pipeline_equal_a_plain_loop_bit_for_bit",
                "rows against a plain loop",
            ),
        ),
    ),
    Guarantee(
        "the object store fails at any operation of a commit, tag, rollback or collection: before it, after it, torn, reply lost, down",
        "Others see the old state or the new one, whole; doing it again succeeds; two collections later nothing is left that nobody needs.",
        (
            Shown(
                "tests/unit/test_versions_faults.py::test_a_fault_at_any_operation_leaves_the_old_state_or_the_new"
            ),
            Shown(
                "tests/unit/test_versions_faults.py::test_a_fault_at_any_operation_of_a_collection_takes_nothing_that_is_needed"
            ),
            Shown(
                "tests/integration/test_versions_s3.py::test_an_outage_fails_a_commit_and_the_same_draft_commits_afterwards",
                "a real S3 server",
            ),
        ),
    ),
    Guarantee(
        "the disk of a `file://` store is full, or a put is torn",
        "The commit fails, the previous head stays, readiness says so; it goes on when there is room.",
        (
            Shown(
                "tests/unit/test_versions_faults.py::test_a_full_store_leaves_the_previous_head_and_names_the_object"
            ),
            Shown(
                "tests/integration/test_versioner_faults.py::test_a_full_disk_under_the_store_fails_the_commit_and_leaves_the_head_until_there_is_room",
                "a real file system",
            ),
            Shown("tests/conformance/test_object_stores.py::test_a_local_put_that_is_torn_leaves_no_object"),
            Shown(
                "tests/conformance/test_object_stores.py::test_local_objects_are_on_disk_before_they_have_a_name",
                "power cut",
            ),
        ),
    ),
    Guarantee(
        "two writers continue one branch, or race for a name",
        "One version each has its name; of two on one branch the second is told and commits nothing.",
        (
            Shown("tests/unit/test_versions.py::test_a_second_writer_of_a_branch_is_told"),
            Shown(
                "tests/unit/test_versions_races.py::test_of_writers_that_continue_one_branch_at_once_one_commits",
                "eight at once",
            ),
            Shown("tests/unit/test_versions.py::test_two_runs_that_race_for_a_name_get_one_each"),
            Shown("tests/conformance/test_object_stores.py::test_create_if_absent_is_atomic", "each backend"),
        ),
    ),
    Guarantee(
        "the object store has no atomic create-if-absent",
        "`driftline doctor` races for a scratch key, and says that versions could be overwritten there.",
        (
            Shown("tests/unit/test_doctor_store.py::test_a_store_that_overwrites_is_found_out_by_racing_it"),
            Shown(
                "tests/integration/test_doctor_store.py::test_a_store_with_conditional_writes_is_well",
                "S3 protocol",
            ),
        ),
    ),
    Guarantee(
        "old versions are removed by `gc --older-than`",
        "Heads, tags, pins, deployments and what the log goes back to stay, and what stays is whole.",
        (
            Shown(
                "tests/unit/test_version_gc.py::test_old_versions_go_unless_they_are_held_or_the_log_goes_back_to_them"
            ),
            Shown("tests/unit/test_version_gc.py::test_objects_go_with_the_second_run_a_grace_period_later"),
        ),
    ),
    Guarantee(
        "a byte of a stored version changes, or an object is lost",
        "`fsck` and every read that touches it name the object, with the expected and the found checksum; the rest stays readable.",
        (
            Shown(
                "tests/unit/test_versions_codecs.py::test_every_flipped_byte_of_every_object_is_found_by_fsck"
            ),
            Shown(
                "tests/unit/test_versions_codecs.py::test_every_flipped_byte_is_found_by_a_read_that_touches_it"
            ),
            Shown("tests/unit/test_versions.py::test_a_missing_object_is_named_and_the_rest_stays_readable"),
        ),
    ),
    Guarantee(
        "a group is rolled back to a version while it is trained and read",
        'Rows, optimizer state and LSNs are those at the version\'s barrier, to the bit, in all tables that it has; the audit replays over it. No read fails or mixes versions within a shard, none at all with `consistent="epoch"`.',
        (
            Shown(
                "tests/integration/test_restore.py::test_a_rollback_is_exact_and_the_audit_replays_over_it"
            ),
            Shown(
                "tests/integration/test_restore.py::test_a_version_and_the_log_from_there_give_the_first_run_again"
            ),
            Shown(
                "tests/integration/test_restore.py::test_readers_during_rollbacks_never_see_two_versions_of_a_shard"
            ),
            Shown("tests/integration/test_restore.py::test_gradients_made_from_rows_of_before_are_dropped"),
            Shown(
                "tests/simulation/test_aggregator.py::test_every_commit_and_every_publication_is_what_the_log_says"
            ),
        ),
    ),
    Guarantee(
        "kill -9 of the aggregator at any step of a restore, a lost reply, a move",
        "The rows of before or of the version, never a mixture; a successor finishes it and leaves no copy behind.",
        (
            Shown(
                "tests/unit/test_restoring.py::test_an_owner_that_dies_at_any_step_leaves_the_same_to_its_successor",
                "each exchange with Redis",
            ),
            Shown(
                "tests/integration/test_restore_kills.py::test_kills_of_the_aggregator_at_every_step_of_prepare_and_restore"
            ),
            Shown(
                "tests/integration/test_restore_kills.py::test_kills_of_the_aggregator_at_any_moment_of_many_restores"
            ),
            Shown("tests/unit/test_restoring.py::test_a_broken_connection_at_the_swap_is_settled"),
            Shown("tests/unit/test_restoring.py::test_a_zombie_s_copy_is_never_swapped_in"),
            Shown(
                "tests/integration/test_restore_kills.py::test_a_shard_that_moves_while_it_is_prepared_is_loaded_where_it_goes"
            ),
        ),
    ),
    Guarantee(
        "a version that is to be restored cannot be loaded",
        "Nothing is changed, training goes on, and the error, `w` and `/readyz` name the object; once it is back it is loaded.",
        (
            Shown(
                "tests/integration/test_restore.py::test_a_version_that_cannot_be_loaded_changes_nothing_and_says_which_object"
            ),
            Shown(
                "tests/unit/test_restoring.py::test_training_goes_on_while_a_version_is_loaded_or_cannot_be"
            ),
        ),
    ),
    Guarantee(
        "Redis loses a deployed version",
        "Its copy is loaded again from the store; a read meanwhile is refused, never wrong.",
        (Shown("tests/integration/test_restore.py::test_a_deployed_version_is_read_beside_the_live_rows"),),
    ),
    Guarantee(
        "a versioner is killed at any change to the store, freezes, or shares its shards with another",
        "Each barrier becomes one version, with the rows that the log has at it, or is rejected; never two.",
        (
            Shown(
                "tests/integration/test_versioner_crashes.py::test_a_versioner_killed_at_any_change_to_the_store_leaves_the_version_once"
            ),
            Shown(
                "tests/integration/test_versioner_crashes.py::test_two_instances_share_the_shards_and_one_goes_on_when_the_other_dies"
            ),
            Shown(
                "tests/simulation/test_versions.py::test_every_version_is_what_the_log_says_at_its_barrier_and_is_made_once",
                "simulated",
            ),
        ),
    ),
    Guarantee(
        "a versioner is killed in the middle of rolling rows back to a backup",
        "Its successor has the backups again and finishes; the rows are those of the backup, to the bit, and each is set once, also where others share the shards then.",
        (
            Shown(
                "tests/integration/test_versioner_restore_kills.py::test_a_node_rollback_counts_once_though_others_share_the_shards_of_who_died"
            ),
            Shown(
                "tests/unit/test_node_rollback.py::test_instances_ask_for_the_same_ops_however_they_share_the_shards",
                "the cut, unit",
            ),
            Shown(
                "tests/integration/test_versioner_crashes.py::test_a_node_rollback_whose_versioner_is_killed_is_finished_by_the_next"
            ),
            Shown(
                "tests/integration/test_versioner_faults.py::test_backups_are_there_again_after_the_versioner_was_killed"
            ),
        ),
    ),
    Guarantee(
        "a versioner is killed at any step of a prepare or restore",
        "The roll-back becomes one version, with the rows of the one named; the line goes on from it.",
        (
            Shown(
                "tests/integration/test_versioner_restore_kills.py::test_a_restore_becomes_one_version_whatever_step_the_versioner_is_killed_at"
            ),
        ),
    ),
    Guarantee(
        "an aggregator is killed at any step of a barrier, a prepare, a restore or a node roll-back",
        "The operation is carried out once: the version is what the log says, the rows are those of the version or of the backup.",
        (
            Shown(
                "tests/integration/test_op_kills.py::test_in_a_barrier_and_the_version_is_what_the_log_says"
            ),
            Shown(
                "tests/integration/test_op_kills.py::test_in_a_restore_and_the_rows_are_those_of_the_version"
            ),
            Shown(
                "tests/integration/test_op_kills.py::test_in_a_node_rollback_and_the_rows_are_those_of_the_backup_once"
            ),
        ),
    ),
    Guarantee(
        "an append of row states that was given up on arrives behind a version's barrier",
        "What the version holds is not put back to older rows by it.",
        (
            Shown(
                "tests/unit/test_versioner_shards.py::test_a_state_of_before_the_barrier_that_comes_late_does_not_go_over_the_version"
            ),
        ),
    ),
    Guarantee(
        "compaction, tiers, merges, commits and collections run at once, or stop anywhere",
        "A version keeps its name and its rows; what a branch, a label or a commit in flight needs is never taken.",
        (
            Shown(
                "tests/unit/test_versions_compaction.py::test_a_commit_in_flight_outlives_a_compaction_and_collections"
            ),
            Shown(
                "tests/unit/test_versions_compaction.py::test_a_parent_branch_can_be_removed_while_its_children_live"
            ),
            Shown(
                "tests/unit/test_versions_compaction.py::test_cleanup_between_the_steps_of_a_merge_takes_nothing_of_it"
            ),
            Shown(
                "tests/unit/test_versions_faults.py::test_a_fault_at_any_operation_leaves_the_old_state_or_the_new",
                "each operation of the store fails",
            ),
        ),
    ),
    Guarantee(
        "a restore asks for a version whose bits were given up to save room",
        "It is refused by name. What is held, or named by the log, never becomes lossy.",
        (
            Shown(
                "tests/unit/test_versions_compaction.py::test_what_needs_the_bits_of_a_lossy_version_is_refused_by_name"
            ),
            Shown(
                "tests/unit/test_versions_compaction.py::test_a_version_that_is_given_a_hold_meanwhile_is_exact_again"
            ),
            Shown(
                "tests/integration/test_merged.py::test_training_goes_on_exactly_from_a_merge_that_was_compacted",
                "real servers",
            ),
        ),
    ),
    Guarantee(
        "a version store was written by another release",
        "It is refused with a way out, and nothing in it changes.",
        (
            Shown(
                "tests/integration/test_versioner_faults.py::test_a_store_of_another_format_is_refused_with_a_way_out"
            ),
        ),
    ),
    Guarantee(
        "the object store of the versions is away",
        "Versions wait and say so; training goes on; the version is committed when the store is back.",
        (
            Shown(
                "tests/integration/test_versioner_crashes.py::test_a_store_that_is_away_pauses_versions_and_not_training"
            ),
        ),
    ),
    Guarantee(
        "a bad update while the drift monitor is in mode `auto`",
        "Few rows go back to the backup before their tick, many take the group back to the newest version that passed and is "
        "older than the onset, bit for bit; training goes on.",
        (
            Shown(
                "tests/integration/test_drift_monitor.py::test_few_nodes_go_back_to_the_backup_before_their_tick"
            ),
            Shown(
                "tests/integration/test_drift_monitor.py::test_a_bad_push_takes_the_group_back_to_the_version_before_it"
            ),
        ),
    ),
    Guarantee(
        "`kill -9` of the monitor, the versioner or an aggregator during such a rollback",
        "It is carried out once: every step is told first, and what it asks for is known by an id of its own.",
        (
            Shown(
                "tests/integration/test_drift_monitor.py::test_a_recovery_in_which_somebody_is_killed_is_carried_out_once"
            ),
        ),
    ),
    Guarantee(
        "a producer that goes on poisoning after a rollback",
        "It is shut out where its gradients stand out; then an older version is taken, then a person is asked.",
        (
            Shown(
                "tests/integration/test_drift_monitor.py::test_a_producer_that_goes_on_poisoning_is_shut_out"
            ),
            Shown(
                "tests/unit/test_drift_deciding.py::test_without_such_a_producer_an_older_version_is_restored"
            ),
        ),
    ),
    Guarantee(
        "an operator's bulk upsert",
        "No alarm: only rows moved by gradients are judged.",
        (Shown("tests/integration/test_drift_monitor.py::test_an_operators_bulk_upsert_raises_no_alarm"),),
    ),
)


def table() -> str:
    """Return the guarantees as a Markdown table."""
    rows = ["| failure | what happens | shown by |", "|---|---|---|"]
    for each in GUARANTEES:
        shown = ", ".join(
            f"{test.how}: `{test.test}`" if test.how else f"`{test.test}`" for test in each.shown
        )
        rows.append(f"| {each.failure} | {each.happens} | {shown} |")
    return "\n".join(rows) + "\n"
