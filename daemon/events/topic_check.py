"""The check of a configuration's Kafka topics, for `check-config`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Final

from daemon.config.load import Config
from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import NotConnectedError
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.connection.topics import Topic, TopicProblem, acl_commands, inspect_topics, needed_topics, not_inspected

LIMIT_S: Final = 15.0
"""Seconds for the whole check. Each step has a limit of its own, except the look-up of a name, which may take half a minute if no name
server answers."""


def topics_of(config: Config) -> tuple[Topic, ...]:
    """Return the Kafka topics that a configuration needs, that of telemetry first."""
    events = config.events
    return needed_topics(config.kafka.topic, events.drift_topic, events.models_topic, events.dead_letter_topic, events=events.to != "file")


def check_topics(config: Config) -> bool:
    """Print what is wrong with the topics, and the commands that mend it, on standard error. Return whether all is well."""
    options, topics = config.kafka.client_options(), topics_of(config)
    servers, names = options.servers(), ", ".join(topic.name for topic in topics)
    found = _look(options, topics)
    if isinstance(found, Failure):
        advice = Errand(options, config.kafka.topic, config.kafka.group_id).advice(found)
        _print(f"topics: not checked ({found}); {advice}. The daemon needs {names}")
        return not isinstance(found.error, REFUSALS)
    for problem in found:
        _print(f"topics: {problem.what}; {problem.todo}")
    if not found:
        _print(f"topics: {names} exist and can be used")
    elif options.sasl_plain_username:
        _print("topics: all rights that the user needs:")
        for command in acl_commands(topics, config.kafka.group_id, servers, options.sasl_plain_username):
            _print(f"  {command}")
    return not found


def _look(options: KafkaOptions, topics: Sequence[Topic]) -> list[TopicProblem] | Failure:
    """Return the problems of the topics, or the reason why there is no answer within LIMIT_S."""
    found: list[list[TopicProblem] | Failure] = []

    def look() -> None:
        try:
            found.append(inspect_topics(options, topics))
        except NotConnectedError as error:
            found.append(error.failure)
        except Exception as error:  # noqa: BLE001 - for example an answer that the client cannot read
            found.append([not_inspected(topic, error) for topic in topics])

    thread = threading.Thread(target=look, name="topics", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return found[0] if found else Failure(TimeoutError(f"no answer of {options.servers()} within {LIMIT_S:g} s: timed out"))


def _print(line: str) -> None:
    print(line, file=sys.stderr)
