"""The command line: dwcp-learner run, replay, train, demo, simulate, check-config, models, keys and schema."""

from __future__ import annotations

import os
import signal
import sys

# Official builds of ONNX Runtime report usage to their vendor unless this is set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
if sys.argv[1:2] == ["run"]:
    # The imports take a second in which SIGHUP would end the process. Nothing is lost: the configuration is read after them.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from daemon.commands.alerts import app as alerts_app
from daemon.commands.keys import app as keys_app
from daemon.commands.models import app as models_app
from daemon.config import load as configuration
from daemon.config.keys import registry_with_keys
from daemon.config.load import Config, ConfigError
from daemon.entry import CarriedError
from daemon.errors import EXIT_CODES, EXIT_SOURCE, StateError
from daemon.failures import FAILURES, explained
from daemon.plain_text import plain


class Commands(TyperGroup):
    """Typer says "Aborted." to an EOFError, and nothing to a BrokenPipeError: here they are faults like others."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (EOFError, BrokenPipeError) as error:
            raise CarriedError(error) from error


app = typer.Typer(
    name="dwcp-learner", cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, epilog=EXIT_CODES,
    help="Forecasts network links from Kafka telemetry, notices drift, retrains, and publishes ONNX models.",
)  # fmt: skip
app.add_typer(models_app, name="models")
app.add_typer(alerts_app, name="alerts")
app.add_typer(keys_app, name="keys")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", envvar="DWCP_CONFIG", help="TOML file; DWCP_ variables go over it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on standard output.")]


@app.command(epilog=EXIT_CODES)
def run(config: ConfigOption = None) -> None:
    """Consume telemetry from Kafka, for ever: forecast, notice drift, retrain, publish.

    Needs a Kafka topic (kafka.topic, default dwcp.telemetry) and nothing else: without a model it collects rows and trains its first
    version when there are enough. SIGTERM stops it within 10 s, SIGHUP reloads the configuration.
    """
    from daemon.clock import WallClock
    from daemon.commands.signals import Reloads, stop_on_signals
    from daemon.operator.logs import configure_logging
    from daemon.operator.observer import Observer
    from daemon.output import lose_what_cannot_be_written
    from daemon.reload import reloader
    from daemon.wiring import build, kafka_source

    reloads = Reloads()
    loaded = configuration.load(config)
    lose_what_cannot_be_written()
    configure_logging(loaded.log.level, loaded.log.format)
    observer = Observer()
    daemon = build(loaded, kafka_source(loaded, observer), WallClock(), observer)
    reload_config = reloader(daemon, loaded, lambda: configuration.reload(config), observer)

    def reload_or_refuse() -> None:
        try:
            reload_config()
        except ConfigError as error:
            observer.tell("config_rejected", problem=str(error))

    stop_on_signals(daemon.loop.stop)
    reloads.go_to(lambda: daemon.loop.reload_with(reload_or_refuse))
    code = StateError.exit_code
    try:
        daemon.run()
    except FAILURES as error:
        if not daemon.hangs:
            raise
        code = explained(error)
    if daemon.hangs:  # the interpreter would wait for that thread; its checkpoint does not count, and its records are read again
        sys.stderr.flush()
        os._exit(code)


@app.command(epilog=EXIT_CODES)
def replay(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or NDJSON file, a folder of them, or - for standard input.")],
    config: ConfigOption = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Multiple of recorded time; default: as fast as possible.")] = None,
    keep: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder that keeps state, models and dead letters; default: a temporary one.")
    ] = None,
    train: Annotated[bool, typer.Option(help="Train versions on the way, as the daemon would.")] = True,
    merged: Annotated[bool, typer.Option(help="Take the file as one series, whatever its nodes and peers.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run recorded telemetry through the daemon and score its forecasts against persistence.

    Every forecast is made before its row is read (prequential): the first version is trained on the first 40 % of the file, later ones
    on drift. The stream waits for each training.
    """
    from daemon.commands.replay import replay_file

    if speed is not None and not math.isfinite(speed):
        raise typer.BadParameter(f"{speed}: a multiple of recorded time; leave it out for as fast as possible", param_hint="--speed")
    raise SystemExit(replay_file(path, configuration.load(config), speed=speed, keep=keep, train=train, merged=merged, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def train(
    data_path: Annotated[Path, typer.Option(envvar="DATA_PATH", help="CSV or NDJSON file of telemetry, or a folder of them.")],
    output_dir: Annotated[
        Path, typer.Option(envvar="OUTPUT_DIR", help="Folder for the files; an earlier run there is replaced at the end.")
    ] = Path("checkpoints/bandwidth_predictor"),
    epochs: Annotated[int, typer.Option(envvar="EPOCHS", min=1)] = 200,
    batch_size: Annotated[int, typer.Option(envvar="BATCH_SIZE", min=1)] = 64,
    learning_rate: Annotated[float, typer.Option(envvar="LEARNING_RATE", min=1e-6, max=1.0)] = 0.001,
    window_size: Annotated[
        int, typer.Option(envvar="WINDOW_SIZE", help="Rows that a forecast sees, 10 to 240; the daemon takes models of 30.")
    ] = 30,
    validation_split: Annotated[float, typer.Option(help="Share of each link's rows, those before the test's: for early stopping.")] = 0.15,
    test_split: Annotated[float, typer.Option(help="Share of each link's rows, the last: what the figures are of.")] = 0.15,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    horizon: Annotated[int, typer.Option(min=1, help="Rows ahead.")] = 1,
    link_key: Annotated[
        str | None, typer.Option(help='Columns that tell links apart, as "node_id,peer_id"; "" is one merged series. Default: chosen.')
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="full: the published model; small: a fifth of its units, to try something out.")
    ] = "full",
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better one until it stops.")] = 20,
    time_limit_s: Annotated[float, typer.Option(min=1, help="Training ends with the step in which this is spent.")] = 3300.0,
    as_json: JsonOption = False,
) -> None:
    """Train on a recording, judge honestly on its last rows, and write the model and all its reports.

    The data is examined first: what is found, and what is done about it. Ctrl-C ends the training early: the best weights so far are kept
    and reported (exit code 130). Nothing is written before the end; then report.html is the file to look at.
    """
    from daemon.commands.train import train_file
    from daemon.commands.train_options import options_of

    options = options_of(
        data_path, output_dir, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, window_size=window_size,
        validation_split=validation_split, test_split=test_split, seed=seed, horizon=horizon, link_key=link_key,
        architecture=architecture, patience=patience, time_limit_s=time_limit_s,
    )  # fmt: skip
    raise SystemExit(train_file(options, as_json))


@app.command(epilog=EXIT_CODES)
def demo(
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="Where state, models and events go; emptied first if it is an earlier demo's.")
    ] = Path("demo"),
    kafka: Annotated[str | None, typer.Option(metavar="SERVERS", help="Through this Kafka cluster instead of in memory.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated fleet.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Show the whole loop on a simulated fleet in about five minutes.

    240 links stream; the first model is trained; a planted re-route in one region is noticed; the model is fine-tuned on it, judged, and
    published. Exit code 0 only if all of that really happened. DWCP_ variables do not count here.
    """
    from daemon.commands.demo.command import run_demo
    from streams.kafka.connection.options import KafkaOptions

    if kafka is not None:
        try:
            KafkaOptions.from_mapping({"bootstrap_servers": kafka})
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--kafka") from error
    raise SystemExit(run_demo(folder, seed=seed, kafka=kafka, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def simulate(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where telemetry and ground_truth.json are written.")],
    links_per_region: Annotated[int, typer.Option(min=1)] = 50,
    hours: Annotated[float, typer.Option(min=0.01)] = 24.0,
    interval_s: Annotated[float, typer.Option(min=0.1)] = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    form: Annotated[str, typer.Option("--format", help="csv or ndjson")] = "csv",
    event: Annotated[
        list[str] | None,
        typer.Option(help="KIND:REGION:HOUR[:SHARE[:SIZE_SD]], KIND one of step, ramp, variance, loss_burst, reroute. Repeatable."),
    ] = None,
) -> None:
    """Write the telemetry of a simulated fleet, with planted events, and the truth about them."""
    from daemon.commands.simulate import simulation, write_simulation

    try:
        spec = simulation(links_per_region, hours, interval_s, seed, form, event or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print(write_simulation(spec, folder, hours, form))


@app.command("check-config", epilog=EXIT_CODES)
def check_config(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    topics: Annotated[bool, typer.Option(help="Look whether its Kafka topics are there and may be used, if a broker answers.")] = True,
) -> None:
    """Check a configuration and show what it comes to, with defaults and environment. The keys that it names are read.

    The topics are looked for as well, and the commands that create them are printed (on standard error; exit code 5 if one is missing
    or may not be used). Where no broker answers within some seconds, that is only said.
    """
    from daemon.config.usable import check_places
    from daemon.events.topic_check import check_topics

    loaded = configuration.load(config)
    check_places(loaded)
    registry_with_keys(loaded)
    document = loaded.model_dump(mode="json")
    for name in document["kafka"]["options"]:
        if "password" in name:
            document["kafka"]["options"][name] = "***"
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        console = Console()
        console.print(f"[green]valid[/green]: {plain(str(config or 'defaults and environment'))}", soft_wrap=True)
        for section, values in document.items():
            console.print(f"[bold]\\[{section}][/bold]")
            for key, value in values.items():
                console.print(f"  {key} = {json.dumps(value)}", markup=False, highlight=False, soft_wrap=True)
    if topics and not check_topics(loaded):
        raise SystemExit(EXIT_SOURCE)


@app.command(epilog=EXIT_CODES)
def schema(what: Annotated[str, typer.Argument(help="telemetry, alerts, asyncapi or config")] = "telemetry") -> None:
    """Print the JSON Schema of telemetry records, drift alerts or the configuration, or the AsyncAPI document of all topics."""
    from daemon.commands.documents import alert_schema, model_schema
    from streams.records.schema import asyncapi, telemetry_schema

    documents: dict[str, Any] = {
        "telemetry": telemetry_schema, "alerts": alert_schema, "asyncapi": lambda: asyncapi(alert_schema(), model_schema()),
        "config": Config.model_json_schema,
    }  # fmt: skip
    if what not in documents:
        raise typer.BadParameter(f"{what!r} is none of {', '.join(documents)}")
    print(json.dumps(documents[what](), indent=2))


def main() -> None:
    """Run the command line: every exception becomes a message and an exit code."""
    from daemon import entry

    entry.main(app)


if __name__ == "__main__":
    main()
