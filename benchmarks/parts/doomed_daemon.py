"""`dwcp-learner run` that ends like kill -9 before or after the nth call of one of its functions.

python -m parts.doomed_daemon JOB       JOB: {config, owner: "daemon.checkpoint:CheckpointStore", name: "_publish", nth, after}
"""

from __future__ import annotations

import importlib
import sys

from harness import job_of

from parts.rig import module


def main() -> None:
    job = job_of(sys.argv)
    at, _, owner = job["owner"].partition(":")
    target = importlib.import_module(at)
    module("rig/recovery_rig").kill_around(getattr(target, owner) if owner else target, job["name"], job["nth"], after=job["after"])()
    from daemon.cli import main as run

    sys.argv = ["dwcp-learner", "run", "--config", job["config"]]
    run()


if __name__ == "__main__":
    main()
