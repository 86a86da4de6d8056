"""Environment of a training child: it reads no file of the user, and needs no stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.process.child import described
from testkit.paths import ROOT

KERAS = """
from model.process.child import prepare_libraries
prepare_libraries()
import keras
print(keras.config.backend(), keras.config.floatx(), keras.config.image_data_format())
"""
PROGRESS = """
import os, sys
from model.process.child import progress_output
emit = progress_output()
print("a library's words", flush=True)
emit({"stage": "\u6771"})
"""


def run(code: str, *, closed: str = "", **changed: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)} | changed, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("content", ["[]", '{"floatx": "float16", "backend": "nonsense", "image_data_format": "channels_first"}'])
def test_settings_of_keras_that_a_user_has_left_do_not_count(tmp_path: Path, content: str) -> None:
    """Damaged ones would end every training, others would change it. They are left as they are."""
    settings = tmp_path / ".keras/keras.json"
    settings.parent.mkdir()
    settings.write_text(content)
    done = run(KERAS, HOME=str(tmp_path), KERAS_HOME=str(settings.parent), KERAS_BACKEND="nonsense")
    assert done.stdout.splitlines()[-1:] == ["tensorflow float32 channels_last"], done.stderr
    assert settings.read_text() == content
    assert [path.name for path in settings.parent.iterdir()] == ["keras.json"]


def test_progress_has_standard_output_for_itself() -> None:
    """Output of libraries goes to standard error, and a closed stream ends nothing."""
    done = run(PROGRESS, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, '{"stage": "\\u6771"}\n')
    assert "a library's words" in done.stderr
    assert run(PROGRESS, closed=">&-").returncode == 0
    assert run(PROGRESS, closed="2>&-").stdout.endswith('{"stage": "\\u6771"}\n')


@pytest.mark.parametrize("module", ["model.job", "model.run"])
@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_a_job_that_is_none(tmp_path: Path, module: str, closed: str) -> None:
    """Exit code 2 and one line, whatever is open."""
    code = f"import runpy, sys; sys.argv[1:] = [{str(tmp_path / 'none.json')!r}]; runpy.run_module({module!r}, run_name='__main__')"
    done = run(code, closed=closed)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: without a message"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_an_error_has_its_kind_and_one_line(error: Exception, text: str) -> None:
    """The daemon reports in this form why a training failed."""
    assert described(error) == text
