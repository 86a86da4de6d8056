"""Output of a training child: read as progress if it is that, always bounded, and reported regularly while the training runs."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.training.progress import LINE_BYTES_MAX, Progress, ProgressReader, Running, progress_of
from testkit.waiting import wait_for

WHOLE = {
    "event": "training_progress", "job_id": "v", "version": "v", "stage": "train", "epoch": 3, "epochs": 20, "step": 40, "steps": 800,
    "loss": 0.412, "validation_loss": 0.433, "left_s": 80.2,
}  # fmt: skip


def test_a_line_of_the_child_is_progress() -> None:
    """The line has the fields that the child knows by then."""
    whole = progress_of(json.dumps(WHOLE).encode())
    assert whole == Progress("train", 3, 20, 40, 800, 0.412, 0.433, 80.2)
    assert whole.words() == "train, epoch 3 of 20, loss 0.412, validation loss 0.433, 80 s left"
    first = progress_of(json.dumps(WHOLE | {"loss": None, "validation_loss": None, "left_s": None}).encode())
    assert first is not None
    assert first.words() == "train, epoch 3 of 20"
    assert progress_of(b'{"stage": "import"}') == Progress("import")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"garbage", b"\xff\xfe", b"[1]", b"{}", b'{"stage": 1}', b'{"stage": "a\\u001b[2J"}', b'{"stage": "train\\n"}',
        b'{"stage": ""}', b'{"stage": "' + b"a" * 21 + b'"}', b'{"stage": "train", "epoch": -1}', b'{"stage": "train", "epoch": 1e300}',
        b'{"stage": "train", "loss": NaN}', b'{"stage": "train", "loss": 1e999}', b'{"stage": "train", "loss": "low"}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_anything_else_is_not(line: bytes) -> None:
    """Neither a library's words nor what a child never writes reaches log, page or status line."""
    assert progress_of(line) is None


DOCUMENTS = st.recursive(st.none() | st.floats() | st.text(), st.lists)


@given(st.one_of(st.binary(max_size=200), DOCUMENTS.map(lambda document: json.dumps(document).encode())))
def test_no_bytes_are_an_error(line: bytes) -> None:
    """Whatever comes, it is one line of plain words or nothing."""
    progress = progress_of(line)
    assert progress is None or progress.words().isprintable()


@given(st.dictionaries(st.sampled_from(list(WHOLE)), st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=30))))
def test_no_values_are_an_error(values: dict[str, Any]) -> None:
    """Nor do impossible values in the right places."""
    progress = progress_of(json.dumps(WHOLE | values).encode())
    assert progress is None or (progress.words().isprintable() and len(progress.words()) < 150)


def test_a_pipe_is_read_to_its_end_and_its_newest_progress_kept() -> None:
    """Past lines that are too long, and half a line at the end; a flood is read no faster than its pace, so it is the child that waits."""
    reading, writing = os.pipe()
    reader = ProgressReader(os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb", buffering=0) as child:
        child.write(b'{"stage": "read"}\n')
        wait_for(lambda: reader.last == Progress("read"), "the first line")
        child.write(b"x" * (3 * LINE_BYTES_MAX) + b"\n" + json.dumps(WHOLE).encode() + b'\n{"stage": "ga')
    wait_for(lambda: not any(thread.name == "trainer" for thread in threading.enumerate()), "the end of the reader")
    assert reader.last is not None
    assert reader.last.epoch == 3


def test_a_reader_that_is_closed_ends_with_the_next_line() -> None:
    """Something that a dead child has started holds the pipe open, and writes on."""
    reading, writing = os.pipe()
    reader = ProgressReader(os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb", buffering=0) as child:
        reader.close()
        child.write(b"x\n")
        wait_for(lambda: not any(thread.name == "trainer" for thread in threading.enumerate()), "the end of the reader")


def test_a_training_in_words() -> None:
    """For page and status line, with and without a word of the child."""
    assert Running("v1", 61.4, 100.0, None).words() == "training v1 for 61 s"
    assert Running("v1", 61.4, 100.0, Progress("gate")).words() == "training v1 for 61 s (gate)"
