"""The progress that a training child writes to its pipe: read in bounded pieces on a thread, checked, and only the newest kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import IO, Annotated, Any, Final

import msgspec

LINE_BYTES_MAX: Final = 4096
"""Longest line that is read as progress, bytes: ten times what a child writes. The rest of a longer one counts as other lines."""
LINES_PER_S: Final = 50
"""Most lines that are read in a second: a child writes one in two seconds. One that floods its pipe waits, and costs the loop no time."""
_LARGE: Final = 2**53
_Count = Annotated[int, msgspec.Meta(ge=0, le=_LARGE)]
_Number = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]


class Progress(msgspec.Struct, frozen=True):
    """The progress of a training. None: not known (yet).

    Args:
        stage: stage of model.job.
        epoch, epochs: counted from 1.
        step, steps: counted over the whole training.
        loss, validation_loss: masked mean absolute error.
        left_s: seconds until its end, as the child expects.
    """

    stage: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,20}\Z")]
    epoch: _Count | None = None
    epochs: _Count | None = None
    step: _Count | None = None
    steps: _Count | None = None
    loss: _Number | None = None
    validation_loss: _Number | None = None
    left_s: _Number | None = None

    def words(self) -> str:
        """Return it for a person: "train, epoch 3 of 20, loss 0.412, validation loss 0.433, 80 s left"."""
        parts = [self.stage]
        if self.epoch is not None and self.epochs is not None:
            parts.append(f"epoch {self.epoch} of {self.epochs}")
        losses = (("loss", self.loss), ("validation loss", self.validation_loss))
        parts += [f"{name} {value:.3g}" for name, value in losses if value is not None]
        if self.left_s is not None:
            parts.append(f"{self.left_s:.0f} s left")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Running:
    """A training that runs.

    Args:
        seconds: how long it has been running.
        limit_left_s: seconds left of its time limit.
        progress: what its child has written last; None if nothing yet.
    """

    version: str
    seconds: float
    limit_left_s: float
    progress: Progress | None

    def words(self) -> str:
        """Return it for a person."""
        return f"training {self.version} for {self.seconds:.0f} s" + (f" ({self.progress.words()})" if self.progress is not None else "")

    def fields(self) -> dict[str, Any]:
        """Return it for the log."""
        progress = msgspec.structs.asdict(self.progress) if self.progress is not None else {}
        known = {name: value for name, value in progress.items() if value is not None}
        return {"version": self.version, **known, "seconds": round(self.seconds, 1), "limit_left_s": round(self.limit_left_s, 1)}


_DECODER: Final = msgspec.json.Decoder(Progress)


def progress_of(line: bytes) -> Progress | None:
    """Return a line of the child as progress; None for anything else: output of a library, half a line, impossible numbers."""
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: bytes that are not UTF-8
        return None


class ProgressReader:
    """Reads the pipe until its end. Any thread may read `last`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.last: Progress | None = None
        self._stream, self._closed = stream, False
        threading.Thread(target=self._read, name="trainer", daemon=True).start()

    def close(self) -> None:
        """Stop reading at the next line, or at the end of the pipe: nobody waits for what an ended child has left running."""
        self._closed = True

    def _read(self) -> None:
        with self._stream:
            while not self._closed and (line := self._stream.readline(LINE_BYTES_MAX)):
                self.last = progress_of(line) or self.last
                time.sleep(1.0 / LINES_PER_S)
