"""The topics that the daemon needs: looked for before an event needs one, by `check-config` and while it runs, with the commands that
create them and give the rights."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from daemon.events.topic_watch import TopicWatch
from streams.events import Event
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.connection.topics import Topic, _problem, acl_commands, needed_topics
from streams.kafka.sink import KafkaSink
from streams.sinks import NotSentError
from testkit.waiting import wait_for

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def names(kafka_topic: Callable[..., str]) -> dict[str, str]:
    """Names of four topics that nobody else has; that of telemetry is there, the others are missing."""
    telemetry = kafka_topic(partitions=2)
    return {"telemetry": telemetry} | {name: f"{telemetry}.{name}" for name in ("drift", "models", "dead_letter")}


def section(names: dict[str, str]) -> str:
    return "to = 'kafka'\n" + "".join(f"{name}_topic = '{names[name]}'\n" for name in ("drift", "models", "dead_letter"))


def create(admin: KafkaAdminClient, command: str) -> None:
    """Do what the printed command does, with its options."""
    words = shlex.split(command)
    assert words[:2] == ["kafka-topics.sh", "--bootstrap-server"]
    words.remove("--create")
    options = dict(zip(words[1::2], words[2::2], strict=True))
    configs = dict([options["--config"].split("=")])
    partitions, replicas = int(options["--partitions"]), int(options["--replication-factor"])
    admin.create_topics(
        {options["--topic"]: {"num_partitions": partitions, "replication_factor": replicas, "configs": configs}}, wait_for_metadata=True
    )


def test_check_config_finds_what_is_missing(
    cli: Cli, kafka_broker: str, kafka_admin: KafkaAdminClient, names: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 5 and a command for each topic that is not there; the broker takes what these commands say, and then all is well."""
    config = tmp_path / "c.toml"
    config.write_text(f"[kafka]\nbootstrap_servers = '{kafka_broker}'\ntopic = '{names['telemetry']}'\n[events]\n{section(names)}")
    code, out, err = cli("check-config", "-c", config)
    assert code == 5
    assert "valid" in out
    commands = re.findall(r"kafka-topics\.sh .*", err)
    assert [command.split("--topic ")[1].split()[0] for command in commands] == [names[name] for name in ("drift", "models", "dead_letter")]
    for command in commands:
        create(kafka_admin, command)
    code, _, err = cli("check-config", "-c", config)
    assert (code, "exist and can be used" in err) == (0, True)
    assert cli("check-config", "-c", config, "--no-topics")[2] == ""


def test_check_config_without_a_broker(cli: Cli, no_broker: str, tmp_path: Path) -> None:
    """It says that nothing was looked at and which topics are needed; the configuration is valid all the same."""
    config = tmp_path / "c.toml"
    config.write_text(f"[kafka]\nbootstrap_servers = '{no_broker}'\n")
    code, _, err = cli("check-config", "-c", config)
    assert code == 0
    assert "not checked" in err
    assert no_broker in err
    assert "dwcp.telemetry, dwcp.drift, dwcp.models, dwcp.telemetry.dlq" in err


def test_a_daemon_looks_after_the_topics_of_its_events(
    run: Callable[..., Any], kafka_broker: str, kafka_admin: KafkaAdminClient, names: dict[str, str]
) -> None:
    """Missing ones are reported at the start, before there is any event, with the commands; /readyz has them until they are there, and
    again when one disappears."""
    daemon = run(kafka_broker, topic=names["telemetry"], kafka_more=f"group_id = '{names['telemetry']}'", events=section(names))
    daemon.until(lambda: len(daemon.reported("topic_missing")) == 3)
    found = {line["topic"]: line["todo"] for line in daemon.reported("topic_missing")}
    assert set(found) == {names[name] for name in ("drift", "models", "dead_letter")}
    daemon.until(lambda: names["drift"] in daemon.get("/readyz")[1])
    for todo in found.values():
        create(kafka_admin, todo[todo.index("kafka-topics.sh") :])
    daemon.until(lambda: daemon.get("/readyz")[0] == 200)
    assert daemon.stop() == 0


def test_a_topic_that_disappears_while_a_daemon_runs(
    run: Callable[..., Any], kafka_broker: str, kafka_admin: KafkaAdminClient, names: dict[str, str]
) -> None:
    """Dead letters cannot be sent any more, and the checkpoint waits for them: the remedy is the topic, with its command, and when it is
    there again everything goes on."""
    for name in ("drift", "models", "dead_letter"):
        kafka_admin.create_topics({names[name]: {"num_partitions": 1}}, wait_for_metadata=True)
    more = "[state]\ncheckpoint_interval_s = 1\n"
    daemon = run(kafka_broker, topic=names["telemetry"], kafka_more=f"group_id = '{names['telemetry']}'", events=section(names), more=more)
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    producer.send(names["telemetry"], b"{", key=b"a").get(30)
    daemon.until(lambda: daemon.reported("record_rejected"))
    daemon.until(lambda: "dwcp_checkpoint_seconds_count 0.0" not in daemon.get("/metrics")[1])
    kafka_admin.delete_topics([names["dead_letter"]])
    producer.send(names["telemetry"], b"{", key=b"a").get(30)
    producer.close()
    failed = daemon.until(lambda: [line for line in daemon.reported("checkpoint_failed") if names["dead_letter"] in line["remedy"]])[0]
    assert "create" in failed["remedy"]
    daemon.until(lambda: f"topic {names['dead_letter']} does not exist" in daemon.get("/readyz")[1])
    missing = daemon.until(lambda: daemon.reported("topic_missing", topic=names["dead_letter"]))[-1]
    kafka_admin.create_topics({names["dead_letter"]: {"num_partitions": 1}}, wait_for_metadata=True)
    assert "create" in missing["todo"]
    daemon.until(lambda: daemon.get("/readyz")[0] == 200)


def test_an_event_that_waits_for_its_topic_says_so(kafka_broker: str, names: dict[str, str]) -> None:
    """A checkpoint waits for its events. The report says that the topic is missing, not that a broker is."""
    reported: list[str] = []
    sink = KafkaSink(names["drift"], KafkaOptions((kafka_broker,)), lambda name, _: reported.append(name))
    sink.send(Event("id", "dwcp.test", "/test", "s", 0.0, {}))
    try:
        while "topic_missing" not in reported:
            with pytest.raises(TimeoutError) as failed:
                sink.flush(0.2)
        assert isinstance(failed.value, NotSentError)
        assert f"topic {names['drift']} does not exist" in str(failed.value)
        assert f"create topic {names['drift']}" in failed.value.todo
    finally:
        sink.close(0.1)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Errors of which each look at topics raises the first, in place of a broker whose answer the client cannot read."""
    errors: list[Exception] = []

    def look(*_asked: object) -> list[Any]:
        if errors:
            raise errors.pop(0)
        return []

    for module in ("daemon.events.topic_watch", "daemon.events.topic_check"):
        monkeypatch.setattr(f"{module}.inspect_topics", look)
    return errors


def test_an_answer_that_nobody_has_thought_of_does_not_end_the_watch(unreadable: list[Exception]) -> None:
    """It is reported for what it is, once, and the next look counts again."""
    unreadable += [KeyError("name"), KeyError("name")]
    reported: list[tuple[str, str]] = []
    watch = TopicWatch(KafkaOptions(("k:9092",)), [Topic("t", "READ")], lambda name, **fields: reported.append((name, fields["error"])))
    try:
        watch.report()
        assert "KeyError: 'name'" in wait_for(lambda: watch.troubles, "what is wrong")[0]
        watch.report()
        while watch.troubles:
            watch.look_soon()
            watch.report()
        assert reported == [("kafka_refused", "topic t could not be looked at (KeyError: 'name')")]
    finally:
        watch.close()


def test_check_config_over_an_answer_that_nobody_has_thought_of(cli: Cli, unreadable: list[Exception], tmp_path: Path) -> None:
    """Exit code 5 and what it was; not that nobody has answered, and no traceback."""
    unreadable.append(KeyError("name"))
    config = tmp_path / "c.toml"
    config.write_text("[kafka]\nbootstrap_servers = 'k:9092'\n")
    code, _, err = cli("check-config", "-c", config)
    assert (code, "Traceback" in err, "timed out" in err) == (5, False, False)
    assert "topic dwcp.telemetry could not be looked at (KeyError: 'name')" in err


USER = KafkaOptions.from_mapping(
    {"bootstrap_servers": "k:9092", "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    | {"sasl_plain_username": "ada", "sasl_plain_password": "p"}
)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"error_code": 0, "authorized_operations": ["READ", "WRITE", "DESCRIBE"]}, None),
        ({"error_code": 0}, None),  # a broker that does not say
        ({"error_code": 5, "authorized_operations": ["READ"]}, None),  # its leader is away: it is there
        ({}, "topic t does not exist: create it, or correct its name: kafka-topics.sh --bootstrap-server k:9092 --create --topic t "),
        ({"error_code": 3}, "topic t does not exist"),
        ({"error_code": 29}, "this user may not see topic t, or it does not exist: create it, and: kafka-acls.sh"),
        ({"error_code": 0, "authorized_operations": ["WRITE", "DESCRIBE"]}, "this user may not READ topic t: kafka-acls.sh"),
    ],
)
def test_what_a_broker_says_of_a_topic(found: dict[str, Any], wanted: str | None) -> None:
    """Missing, not to be seen, not to be read: each has its own remedy."""
    problem = _problem(Topic("t", "READ"), found, USER, 1)
    assert (problem is None) == (wanted is None)
    assert wanted is None or str(problem).startswith(wanted)
    assert problem is None or "kafka-acls.sh" not in str(problem) or "User:ada" in str(problem)


def test_the_rights_that_are_needed() -> None:
    """Read and describe telemetry, read the group, write and describe the events, and nothing else; without events in Kafka no write."""
    topics = needed_topics("t", "d", "m", "l", events=True)
    commands = acl_commands(topics, "g", "k:9092", "ada")
    rights = [re.sub(r".*--allow-principal User:ada ", "", command) for command in commands]
    assert rights == [
        "--operation Read --operation Describe --topic t",
        *(f"--operation Write --operation Describe --topic {topic}" for topic in "dml"),
        "--operation Read --group g",
        "--operation IdempotentWrite --cluster   # brokers before Kafka 3.0",
    ]
    only_read = acl_commands(needed_topics("t", "d", "m", "l", events=False), "g", "k:9092", "ada")
    assert not any("Write" in command for command in only_read)
    assert len(only_read) == 2
