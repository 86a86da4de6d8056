"""The peer: Quix Streams with a keyed rolling mean of one metric and its state, over the same topic. Runs in .venv-bench.

It has its best settings: no changelog topic (our state goes to a local disk too), and commits as seldom as our checkpoints. Its defaults
cost some 5 % more.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from typing import Any

from quixstreams import Application, State  # type: ignore[import-not-found]  # it is installed in .venv-bench only

MEAN_ROWS = 10
COMMIT_S = 30.0


def rolling_mean(record: dict[str, Any], state: State) -> dict[str, Any]:
    """Return the mean throughput of a link's last ten records."""
    recent = state.get("recent", [])
    recent.append(record["throughput_mbps"])
    if len(recent) > MEAN_ROWS:
        recent.pop(0)
    state.set("recent", recent)
    return {"mean_mbps": sum(recent) / len(recent)}


def consume(bootstrap: str, topic: str, group: str, records: int) -> dict[str, Any]:
    """Return CPU and wall seconds to read `records` records into their state, from connecting to the last commit."""
    with tempfile.TemporaryDirectory(prefix="dwcp-quix-") as state:
        began_s, began_wall_s = time.process_time(), time.monotonic()
        application = Application(
            broker_address=bootstrap, consumer_group=group, auto_offset_reset="earliest", commit_interval=COMMIT_S, state_dir=state,
            use_changelog_topics=False, loglevel="ERROR",
        )  # fmt: skip
        frame = application.dataframe(application.topic(topic, value_deserializer="json"))
        frame = frame.apply(rolling_mean, stateful=True)
        application.run(count=records, collect=False)
        return {"records": records, "cpu_s": time.process_time() - began_s, "wall_s": time.monotonic() - began_wall_s}


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    found = consume(job["bootstrap"], job["topic"], job["group"], job["records"])
    print(json.dumps(found | {"quixstreams": importlib.metadata.version("quixstreams")}))
