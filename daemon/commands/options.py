"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", envvar="DWCP_CONFIG", help="TOML file; DWCP_ variables override it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on standard output.")]
