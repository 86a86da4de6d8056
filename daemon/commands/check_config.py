"""dwcp-learner check-config: what a configuration comes to, and whether everything that it names can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from daemon.config import load as configuration
from daemon.config.keys import registry_with_keys
from daemon.config.usable import check_places, local_time_of
from daemon.errors import EXIT_SOURCE
from daemon.events.topic_check import check_topics
from daemon.plain_text import plain


def check(config: Path | None, *, as_json: bool, topics: bool) -> int:
    """Check a configuration and print it.

    Args:
        config: the TOML file. None: defaults and environment alone.
        as_json: print JSON instead of text.
        topics: look for the Kafka topics as well.

    Returns:
        The exit code: 0, or 5 if a topic is missing or may not be used.

    Raises:
        ConfigError: a setting is wrong, or a folder, key or calendar that it names cannot be used.
    """
    loaded = configuration.load(config)
    check_places(loaded)
    local_time_of(loaded)
    registry_with_keys(loaded)
    document = loaded.model_dump(mode="json")
    for name in document["kafka"]["options"]:
        if "password" in name:
            document["kafka"]["options"][name] = "***"
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        _print(document, str(config or "defaults and environment"))
    return 0 if not topics or check_topics(loaded) else EXIT_SOURCE


def _print(document: dict[str, dict[str, Any]], name: str) -> None:
    console = Console()
    console.print(f"[green]valid[/green]: {plain(name)}", soft_wrap=True)
    for section, values in document.items():
        console.print(f"[bold]\\[{section}][/bold]")
        for key, value in values.items():
            console.print(f"  {key} = {json.dumps(value)}", markup=False, highlight=False, soft_wrap=True)
