"""Configuration: defaults, file and environment, and messages that name the file, the key and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.commands.demo.command import demo_config
from daemon.config.load import Config, ConfigError, load
from daemon.wiring import pipeline_settings, quorum_policy
from drift.link.monitored import MonitoringPolicy
from drift.region.policy import QuorumPolicy
from testkit.paths import ROOT


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own environment sets nothing."""
    for name in [name for name in os.environ if name.upper().startswith("DWCP_")]:
        monkeypatch.delenv(name)


def written(folder: Path, text: str) -> Path:
    path = folder / "dwcp.toml"
    path.write_text(text)
    return path


def test_nothing_has_to_be_configured() -> None:
    """Without a file and variables, the defaults are valid and are those of the contracts."""
    config = load(None)
    assert config.kafka.topic == "dwcp.telemetry"
    assert config.links.key == ("node_id", "peer_id", "link_type")
    assert config.http.host == "127.0.0.1", "nothing is reachable from outside unless asked for"


def test_the_example_of_the_unit_is_valid() -> None:
    """The file that the installation notes copy can be loaded unchanged."""
    assert load(ROOT / "systemd/dwcp-learner.toml").kafka.bootstrap_servers


def test_file_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable goes over the file, key by key; what neither sets keeps its default."""
    path = written(tmp_path, '[kafka]\ntopic = "from.file"\ngroup_id = "file"\n[training]\nrows_min = 5\n[state]\ndirectory = "s"\n')
    monkeypatch.setenv("DWCP_KAFKA__TOPIC", "from.environment")
    monkeypatch.setenv("dwcp_drift__quorum_links", "7")
    monkeypatch.setenv("DWCP_LINKS__KEY", '["node_id"]')
    config = load(path)
    assert (config.kafka.topic, config.kafka.group_id) == ("from.environment", "file")
    assert (config.drift.quorum_links, config.training.rows_min, config.state.directory) == (7, 5, Path("s"))
    assert config.links.key == ("node_id",)


def test_what_an_operator_sets_of_drift_reaches_its_policies(tmp_path: Path) -> None:
    """Each bound under its own name."""
    bounds = "watched_per_region = 7\nwatched_max = 70\nwatched_always = ['core-*']\nquorum_links = 5\nquorum_share = 0.1\n"
    config = load(written(tmp_path, f"[drift]\n{bounds}lateness_s = 9\n"))
    settings = pipeline_settings(config)
    assert settings.watch == MonitoringPolicy(links_per_region=7, links_max=70, always=("core-*",))
    assert settings.lateness_s == 9.0
    assert quorum_policy(config) == QuorumPolicy(links_min=5, links_share=0.1)


def test_settings_of_an_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a table of their own, in the file and in variables. A variable of an earlier release is refused with its name now."""
    monkeypatch.setenv("DWCP_TRAINING__EXPERT__SEED", "7")
    expert = load(written(tmp_path, "[training.expert]\nbatch_size = 64\n")).training.expert
    assert (expert.batch_size, expert.seed, expert.patience) == (64, 7, 5)
    monkeypatch.setenv("DWCP_TRAINING__PATIENCE", "3")
    with pytest.raises(ConfigError, match=r"DWCP_TRAINING__PATIENCE: is in the table \[training.expert\] now"):
        load(None)


def test_kafka_options_in_variables_have_the_type_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is a string: "false" must not count as true, and a password of digits stays a string."""
    options = {"SESSION_TIMEOUT_MS": "30000", "SSL_CHECK_HOSTNAME": "False", "SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN"}
    for name, value in (options | {"SASL_PLAIN_USERNAME": "dwcp", "SASL_PLAIN_PASSWORD": "0123"}).items():
        monkeypatch.setenv(f"DWCP_KAFKA__OPTIONS__{name}", value)
    made = load(None).kafka.client_options()
    assert made.consumer_config()["session_timeout_ms"] == 30000
    assert made.ssl_check_hostname is False
    assert made.sasl_plain_password == "0123"
    monkeypatch.setenv("DWCP_KAFKA__OPTIONS__SESSION_TIMEOUT_MS", "soon")
    with pytest.raises(ConfigError, match=r"kafka\.options\.session_timeout_ms: 'soon' is not a whole number"):
        load(None)


REFUSED = {
    "an unknown section": ("[kafak]\ntopic = 'x'\n", r"kafak: there is no such setting; did you mean kafka\?"),
    "an unknown key": ("[kafka]\ntopik = 'x'\n", r"kafka.topik: there is no such setting; did you mean topic\?"),
    "a key of nothing": ("[http]\nwhatever = 1\n", r"http.whatever: there is no such setting; delete it, or correct its name"),
    "a setting of an older release": ("[drift]\nquiet_s = 60\n", r"drift.quiet_s: is not a setting any more, .*; delete it"),
    "a wrong type": ("[training]\nrows_min = 'many'\n", r"training.rows_min: Input should be a valid integer"),
    "out of range": ("[drift]\nquorum_share = 2.0\n", r"drift.quorum_share: Input should be less than or equal to 1"),
    "a port": ("[http]\nport = 99999\n", r"http.port: Input should be less than or equal to 65535"),
    "an unknown choice": ("[events]\nto = 'pigeon'\n", r"events.to: Input should be 'kafka', 'file' or 'both'"),
    "a link key of unknown columns": ("[links]\nkey = ['node']\n", r"links.key: .*unknown columns node; a link key is made of node_id"),
    "a member's name": ("[state]\nmember = 'a/b'\n", r"state.member: String should match pattern"),
    "a cron line": ("[training]\nschedule = '0 25 * * *'\n", r"training.schedule: .*25"),
    "four fields of cron": ("[training]\nschedule = '0 3 * *'\n", r"training.schedule: .*'0 3 \* \*' has 4 fields"),
    "an empty topic": ("[kafka]\ntopic = ''\n", r"kafka.topic: .*'' is not a valid Kafka topic name; use 1 to 249 letters"),
    "a topic with a blank and a slash": ("[kafka]\ntopic = 'a b/c'\n", r"kafka.topic: .*'a b/c' is not a valid"),
    "a topic that is too long": (f"[kafka]\ntopic = '{'x' * 250}'\n", r"kafka.topic: .* is not a valid"),
    "a topic of one dot": ("[events]\ndrift_topic = '.'\n", r"events.drift_topic: .*'.' is not a valid"),
    "a topic with a newline": ("[events]\nmodels_topic = 'a\\n'\n".replace("'", '"'), r"events.models_topic: .* is not a valid"),
    "the dead letters' topic for telemetry": (
        "[kafka]\ntopic = 'dwcp.telemetry.dlq'\n",
        r"not valid:\n  .*kafka.topic 'dwcp.telemetry.dlq' is a topic that events are sent to as well",
    ),
    "an empty group": ("[kafka]\ngroup_id = ' '\n", r"kafka.group_id: .*is empty"),
    "an empty state directory": ("[state]\ndirectory = ''\n", r"state.directory: .*is empty"),
    "an empty models directory": ("[models]\ndirectory = ''\n", r"models.directory: .*is empty"),
    "an empty key file": ("[models]\nverify_key = ''\n", r"models.verify_key: .*is empty"),
    "an empty events folder": ("[events]\nfolder = ''\n", r"events.folder: .*is empty"),
    "an empty host, which would be all interfaces": ("[http]\nhost = ''\n", r"http.host: .*is empty"),
    "an absurd batch": (
        "[training.expert]\nbatch_size = 1_000_000_000\n",
        r"training.expert.batch_size: Input should be less than or equal",
    ),
    "a negative seed": ("[training.expert]\nseed = -1\n", r"training.expert.seed: Input should be greater than or equal to 0"),
    "a setting that has moved": ("[training]\npatience = 3\n", r"training.patience: is in the table \[training.expert\] now"),
    "a setting that is gone": ("[training]\nlearning_rate = 0.1\n", r"training.learning_rate: is not a setting any more"),
    "an address": ("[kafka]\nbootstrap_servers = 'http://x'\n", r"'http://x' is not host:port"),
    "an unknown Kafka option": (
        "[kafka.options]\nsesion_timeout_ms = 1\n",
        r"unknown Kafka option 'sesion_timeout_ms'; did you mean 'ses",
    ),
    "an option that is not to be set": ("[kafka.options]\nenable_auto_commit = true\n", r"'enable_auto_commit' cannot be set"),
    "no TOML": ("[kafka\n", r"is not valid TOML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_is_not_valid(tmp_path: Path, case: str) -> None:
    """The message names the file and what is wrong in it."""
    text, message = REFUSED[case]
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: ")


FLOATS = [
    f"{section}.{key}"
    for section, field in Config.model_fields.items()
    for key, value in getattr(field.annotation, "model_fields", {}).items()
    if value.annotation in (float, float | None)
]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("key", FLOATS)
def test_no_number_is_infinite(tmp_path: Path, key: str, value: str) -> None:
    """TOML knows inf and nan; no interval, share or rate means anything with them."""
    section, _, name = key.partition(".")
    with pytest.raises(ConfigError, match=f"{key}: Input should be"):
        load(written(tmp_path, f"[{section}]\n{name} = {value}\n"))


def test_the_environment_does_not_reach_a_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine of a real daemon, DWCP_ variables name its state, models, topics and brokers: a demo must not write there."""
    expected = demo_config(tmp_path, None)
    for name in ("STATE__DIRECTORY", "MODELS__DIRECTORY", "MODELS__SIGNING_KEY", "EVENTS__FOLDER", "KAFKA__TOPIC", "KAFKA__GROUP_ID"):
        monkeypatch.setenv(f"DWCP_{name}", "/var/lib/dwcp-learner")
    monkeypatch.setenv("DWCP_KAFKA__BOOTSTRAP_SERVERS", "production:9092")
    monkeypatch.setenv("DWCP_EVENTS__DRIFT_TOPIC", "production.drift")
    monkeypatch.setenv("DWCP_TRAINING", '{"rows_min": 1}')
    made = demo_config(tmp_path, None)
    assert made.model_dump(exclude={"kafka": {"topic"}}) == expected.model_dump(exclude={"kafka": {"topic"}})
    assert made.kafka.topic.startswith("dwcp.demo.")
    assert made.state.directory == tmp_path / "state"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda _path: None,
            r"missing: cannot be read \(No such file or directory\); mend its permissions, or name another file with --config",
        ),
        (lambda path: path.mkdir(), r"missing: cannot be read \(Is a directory\)"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), r"missing: is not valid TOML"),
    ],
    ids=["no file", "a folder", "binary"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, make: object, message: str) -> None:
    """The message says why, and how to name another one."""
    make(tmp_path / "missing")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "missing")


@pytest.mark.parametrize("name", ["DWCP_KAFKA__TOPIK", "DWCP_TOPIC", "dwcp_kafka_topic", "DWCP_KAFKA__TOPIC__NAME"])
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A misspelt one would silently keep the default."""
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigError, match=f"{name}: there is no such setting; .*a variable is DWCP_SECTION__KEY"):
        load(None)


def test_a_variable_that_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the key."""
    monkeypatch.setenv("DWCP_HTTP__PORT", "eighty")
    with pytest.raises(ConfigError, match=r"the environment: .*\n.*http.port: Input should be a valid integer"):
        load(None)


def test_a_variable_that_is_no_json_where_a_list_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in a variable is written as JSON; anything else is a message, not a traceback."""
    monkeypatch.setenv("DWCP_LINKS__KEY", "node_id,peer_id")
    with pytest.raises(ConfigError, match=r"links.*written as JSON, for example DWCP_LINKS__KEY='\[\"node_id\"\]'"):
        load(None)


def test_a_message_shows_no_password(tmp_path: Path) -> None:
    """Configuration errors end in logs."""
    path = written(tmp_path, "[kafka.options]\nsecurity_protocol = 'SASL_SSL'\nsasl_plain_password = 'hunter2'\nsasl_mechanism = 'PLAN'\n")
    with pytest.raises(ConfigError, match="sasl_mechanism") as refused:
        load(path)
    assert "hunter2" not in str(refused.value)


def test_the_configuration_cannot_change_under_the_daemon() -> None:
    """The configuration that was checked is the one that runs."""
    with pytest.raises(ValueError, match="frozen"):
        load(None).kafka.topic = "x"  # type: ignore[misc]


def test_every_setting_has_a_section_of_known_keys() -> None:
    """The schema that `dwcp-learner schema config` prints refuses unknown keys at every level."""
    schema = Config.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(section["additionalProperties"] is False for section in schema["$defs"].values())
