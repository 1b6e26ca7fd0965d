"""Every configuration file loads, and every command that the documentation names exists with its options."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

from megadec.common.config import from_yaml
from megadec.engine.runs.common import CommonRun
from megadec.engine.runs.pretrain import Run
from megadec.engine.runs.seq2seq import PairsRun
from megadec.engine.zero.settings import read_settings
from megadec.finetune.task import FineTuneRun
from tests.support import PROJECT

RUNS: dict[str, type[CommonRun]] = {
    "launch/pretrain.py": Run,
    "launch/finetune.py": FineTuneRun,
    "launch/seq2seq.py": PairsRun,
}
DOCUMENTS = ["README.md", "README.zh-CN.md", "launch/demo.sh", "ds_configs/README.md", "tokenizer/zh_32k/README.md"]


@pytest.mark.parametrize("path", sorted((PROJECT / "launch" / "runs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_run_file_is_a_run_of_the_command_that_its_comment_gives(path: Path) -> None:
    [script] = {script for script in RUNS if script in path.read_text(encoding="utf-8")}
    assert from_yaml(RUNS[script], path).name


@pytest.mark.parametrize("path", sorted((PROJECT / "ds_configs").glob("*.json")), ids=lambda path: path.name)
def test_every_deepspeed_file_is_one(path: Path) -> None:
    assert "zero_optimization" in read_settings(path)


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """(document, script, its options) for each command line in the documents, joined over line ends; what follows
    ` -- ` is a command of its own."""
    found = []
    for name in DOCUMENTS:
        text = re.sub(r"\\\n\s*", " ", (PROJECT / name).read_text(encoding="utf-8"))
        for line in text.splitlines():
            if not re.match(r"\s*(?:python|deepspeed)\s", line.strip("`$ ")):
                continue
            for command in line.split(" #")[0].replace("`", "").split(" -- "):
                match = re.search(r"((?:tools|launch|tokenizer)/\w+\.py)(.*)", command)
                if match:
                    words = shlex.split(match[2], posix=False)
                    options = tuple(word.split("=")[0] for word in words if word.startswith("--"))
                    found.append((name, match[1], options))
    return found


@cache
def help_of(script: str) -> str:
    """What `python SCRIPT --help` prints; in this process, as imports take most of its time."""
    printed = io.StringIO()
    with (
        mock.patch("sys.argv", [script, "--help"]),
        contextlib.redirect_stdout(printed),
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_path(str(PROJECT / script), run_name="__main__")
    assert ended.value.code in (0, None), script
    return printed.getvalue()


def test_the_readme_names_commands() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("document", "script", "options"), commands())
def test_every_command_in_the_documents_exists_with_its_options(
    document: str, script: str, options: tuple[str, ...]
) -> None:
    assert (PROJECT / script).is_file(), f"{document} names {script}"
    text = help_of(script)
    for option in options:
        if option != "--deepspeed":  # read before the run's own options
            assert re.search(rf"{option.replace('-', '[-_]')}\b", text), f"{document}: {script} has no option {option}"


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    skipped = pytestconfig.getini("norecursedirs")
    folders = {path.parent.name for path in (PROJECT / "tests").rglob("test_*.py")}
    assert "dist" in folders
    assert not [name for name in folders if any(fnmatch(name, pattern) for pattern in skipped)]
