"""A command beside a fresh Apache Kafka broker: `{servers}` in its arguments becomes the broker's address."""

from __future__ import annotations

import subprocess
import sys

from broker import Broker, UnavailableError  # beside this script: the command inherits no import path from it


def main(command: list[str]) -> int:
    """Run the command and return its exit code; 1 if no broker can be started."""
    try:
        print("starting Apache Kafka (the first time, its jars are resolved with Maven)", file=sys.stderr, flush=True)
        with Broker() as broker:
            return subprocess.run([argument.replace("{servers}", broker.bootstrap) for argument in command], check=False).returncode
    except (UnavailableError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
