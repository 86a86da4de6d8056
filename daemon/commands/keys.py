"""dwcp-learner keys: the pair of keys that signs and verifies published versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.errors import EXIT_CODES, DaemonError
from daemon.plain_text import plain

app = typer.Typer(no_args_is_help=True, help="Make the keys that sign and verify published versions.", epilog=EXIT_CODES)


@app.callback()
def _keys() -> None:
    """Keep `generate` a command: Typer would make the only command the group itself."""


@app.command(epilog=EXIT_CODES)
def generate(
    folder: Annotated[Path, typer.Option(help="Folder for the two files; made if missing.")] = Path(),
) -> None:
    """Make an Ed25519 pair: a private key that signs, a public one that verifies. Existing files are never replaced."""
    from model.version.signing import KeyFileError
    from model.version.signing import generate as generate_pair

    try:
        private, public = (path.resolve() for path in generate_pair(folder))
    except KeyFileError as error:
        raise DaemonError(str(error)) from error
    except OSError as error:
        raise DaemonError(f"{folder}: the keys cannot be written ({error.strerror}); name another folder with --folder") from error
    Console().print(
        f"{plain(str(private))}\n"
        "  Private, mode 0600. Whoever has it can publish models. Keep it on the machine of the daemon, readable by the daemon's user\n"
        "  alone, and a copy in a safe place. Configuration: models.signing_key\n"
        f"{plain(str(public))}\n"
        "  Public. Give it to every reader of the models: models.verify_key of the daemon, Options.PublicKey of the Go client,\n"
        "  dwcp-learner models verify --public-key",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
