"""The command line: each command with its options. The work is done in daemon.commands."""

from __future__ import annotations

import os
import signal
import sys

# Official builds of ONNX Runtime report usage to their vendor, unless this is set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
if sys.argv[1:2] == ["run"]:
    # SIGHUP would end the process during the imports, which take a second. Nothing is lost: the configuration is read after them.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from daemon.commands.alerts.command import app as alerts_app
from daemon.commands.backtest.policies import POLICIES
from daemon.commands.keys import app as keys_app
from daemon.commands.models import app as models_app
from daemon.commands.options import ConfigOption, JsonOption
from daemon.commands.train_options import ARCHITECTURE_HELP
from daemon.config import load as configuration
from daemon.config.load import Config, ConfigError
from daemon.entry import CarriedError
from daemon.errors import EXIT_CODES, StateError
from daemon.failures import FAILURES, report
from model.spec import architecture as architectures


class Commands(TyperGroup):
    """Commands whose EOFError and BrokenPipeError are faults like others. Typer prints "Aborted." for the one and nothing for the other."""

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


@app.command(epilog=EXIT_CODES)
def run(config: ConfigOption = None) -> None:
    """Consume telemetry from Kafka until it is stopped: forecast, notice drift, retrain, publish.

    It needs a Kafka topic (kafka.topic, default dwcp.telemetry) and nothing else. Without a model it collects rows, and trains its first
    version when there are enough. SIGTERM stops it within 10 s. SIGHUP reloads the configuration.
    """
    from daemon.clock import WallClock
    from daemon.commands.signals import Reloads, stop_on_signals
    from daemon.operator.logs import configure_logging
    from daemon.operator.observer import Observer
    from daemon.output import ignore_write_errors
    from daemon.reload import reloader
    from daemon.wiring import build, kafka_source

    reloads = Reloads()
    loaded = configuration.load(config)
    ignore_write_errors()
    configure_logging(loaded.log.level, loaded.log.format)
    observer = Observer()
    daemon = build(loaded, kafka_source(loaded, observer), WallClock(), observer)
    reload_config = reloader(daemon, loaded, lambda: configuration.reload(config), observer)

    def reload_or_refuse() -> None:
        try:
            reload_config()
        except ConfigError as error:
            observer.emit("config_rejected", problem=str(error))

    stop_on_signals(daemon.loop.stop)
    reloads.go_to(lambda: daemon.loop.reload_with(reload_or_refuse))
    code = StateError.exit_code
    try:
        daemon.run()
    except FAILURES as error:
        if not daemon.hangs:
            raise
        code = report(error)
    if daemon.hangs:  # a thread hangs: the interpreter would wait for it. Its checkpoint does not count, and its records are read again
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
    merged: Annotated[bool, typer.Option(help="Read the file as one series, whatever its nodes and peers.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run recorded telemetry through the daemon and score its forecasts against persistence.

    Every forecast is made before its row is read (prequential). The first version is trained on the first 40 % of the file, later ones
    after a drift. The stream waits for each training.
    """
    from daemon.commands.replay import replay_file

    if speed is not None and not math.isfinite(speed):
        raise typer.BadParameter(f"{speed} is not a multiple of recorded time; leave it out for as fast as possible", param_hint="--speed")
    raise SystemExit(replay_file(path, configuration.load(config), speed=speed, keep=keep, train=train, merged=merged, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def backtest(
    file: Annotated[Path, typer.Argument(help="CSV or NDJSON of telemetry, or a folder of such files.")],
    config: ConfigOption = None,
    policy: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(POLICIES)}; repeatable. Default: all.")] = None,
    merged: Annotated[bool, typer.Option(help="Read the file as one series, whatever its links.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for the result of each policy: an interrupted backtest goes on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the errors over time and all trainings.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded telemetry under several policies of training, side by side: frozen, scheduled, on drift, always, as configured.

    Every row is forecast before it is read, and what is forecast for later rows is judged when they come. All policies are judged on the
    rows that they all forecast, beside simple forecasts and an online linear model.
    """
    from daemon.commands.backtest.command import backtest_file

    loaded = configuration.load(config)
    raise SystemExit(
        backtest_file(file, loaded, policies=policy or list(POLICIES), merged=merged, keep=keep, html=html, as_json=as_json)
    )  # fmt: skip


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
    horizon: Annotated[int, typer.Option(min=1, help="Rows ahead of a version that forecasts one row alone; see --horizons.")] = 1,
    horizons: Annotated[
        str | None,
        typer.Option(
            help=f"Rows ahead that are forecast, ascending from 1. Default: {','.join(map(str, architectures.DEFAULT_HORIZONS))}."
        ),
    ] = None,
    coverage: Annotated[float, typer.Option(min=0.5, max=0.99, help="Share of what is measured between lower and upper forecast.")] = 0.9,
    gap_multiple: Annotated[
        float, typer.Option(min=1.1, max=1e6, help="Pauses over this many median intervals of a link end its windows.")
    ] = 5.0,
    link_key: Annotated[
        str | None, typer.Option(help='Columns that tell links apart, as "node_id,peer_id"; "" is one merged series. Default: chosen.')
    ] = None,
    architecture: Annotated[str, typer.Option(help=ARCHITECTURE_HELP)] = architectures.DEFAULT,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better one until it stops.")] = 20,
    time_limit_s: Annotated[float, typer.Option(min=1, help="Training ends with the step in which this is spent.")] = 3300.0,
    time_zone: Annotated[str, typer.Option(help="Time zone of the links: the hours of their day.")] = "UTC",
    holidays: Annotated[str, typer.Option(help='Days that count as weekend: a country as "DE", its part "DE-BY", or an .ics file.')] = "",
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
        time_zone=time_zone, holidays=holidays, horizons=horizons, coverage=coverage, gap_multiple=gap_multiple,
    )  # fmt: skip
    raise SystemExit(train_file(options, as_json))


@app.command(epilog=EXIT_CODES)
def demo(
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for state, models and events; emptied first if an earlier demo made it.")
    ] = Path("demo"),
    kafka: Annotated[str | None, typer.Option(metavar="SERVERS", help="Stream through this Kafka cluster instead of memory.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated fleet.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Show the whole loop on a simulated fleet in about five minutes.

    240 links stream, and the first model is trained. A planted re-route in one region is noticed; the model is fine-tuned on it, judged
    and published. The exit code is 0 only if all of that really happened. DWCP_ variables are not read.
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
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Folder in which telemetry and ground_truth.json are written.")],
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
    topics: Annotated[bool, typer.Option(help="Check that its Kafka topics exist and may be used, if a broker answers.")] = True,
) -> None:
    """Check a configuration, and show it with defaults and environment. The keys that it names are read.

    The topics are checked as well. If one is missing or may not be used, the commands that create it are printed on standard error, and
    the exit code is 5. If no broker answers within some seconds, that is reported, and the exit code stays 0.
    """
    from daemon.commands.check_config import check

    raise SystemExit(check(config, as_json=as_json, topics=topics))


@app.command(epilog=EXIT_CODES)
def ledger(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what each training has cost, what its gate has promised, and what its version has really brought."""
    from daemon.commands.ledger import show_ledger

    show_ledger(configuration.load(config), as_json=as_json)


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
        raise typer.BadParameter(f"{what!r} is not a document; use one of {', '.join(documents)}")
    print(json.dumps(documents[what](), indent=2))


def main() -> None:
    """Run the command line. Every exception becomes a message and an exit code."""
    from daemon import entry

    entry.main(app)


if __name__ == "__main__":
    main()
