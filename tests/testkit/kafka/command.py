"""Apache Kafka for a person: a broker until Ctrl-C, or a command beside a broker.

python tests/testkit/kafka/command.py --port 9092
python tests/testkit/kafka/command.py COMMAND ...      `{servers}` in its arguments becomes the broker's address
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time

from broker import Broker, UnavailableError  # beside this script: a command must not inherit an import path


def main() -> int:
    """Run a broker, alone or beside a command.

    Returns:
        The exit code: that of the command (130 after Ctrl-C), 0 after Ctrl-C or SIGTERM, 1 without a broker, 2 if the port cannot be used.
    """
    parser = argparse.ArgumentParser(description="Runs Apache Kafka on loopback, with an empty store, until Ctrl-C or beside a command.")
    parser.add_argument("--port", type=int, default=9092, help="port to listen on (default: 9092); 0 or beside a command: a free one")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command; {servers} in its arguments becomes the broker's address")
    arguments = parser.parse_args()
    port = None if arguments.command else arguments.port or None
    if port is not None and (problem := _problem(port)) is not None:
        print(f"port {port} cannot be used ({problem}); choose another with --port, or 0 for a free one", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print("starting Apache Kafka (the first time, its jars are resolved with Maven)", file=sys.stderr, flush=True)
        with Broker(port) as broker:
            if arguments.command:
                return subprocess.run([part.replace("{servers}", broker.bootstrap) for part in arguments.command], check=False).returncode
            print(broker.bootstrap, flush=True)
            print(f"log: {broker.folder / 'broker.log'}; Ctrl-C stops it and deletes its data", file=sys.stderr, flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return 130 if arguments.command else 0
    except (UnavailableError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


def _problem(port: int) -> str | None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        return error.strerror or str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
