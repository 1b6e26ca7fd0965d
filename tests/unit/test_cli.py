"""Laws of the `megadec` command."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from megadec.cli import VERBS, run_verb
from megadec.common.errors import ConfigError
from tests.support import PROJECT


def test_every_verb_is_a_function_that_a_script_calls() -> None:
    scripts = [path for folder in ("launch", "tools", "tokenizer") for path in (PROJECT / folder).glob("*.py")]
    called = "\n".join(path.read_text(encoding="utf-8") for path in scripts)
    for module, function in (target.split(":") for target in VERBS.values()):
        assert callable(getattr(importlib.import_module(module), function))
        assert f"from {module} import {function}" in called


def test_a_verb_takes_the_other_arguments(
    tiny_shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["megadec"])
    run_verb(["show", "--data", str(tiny_shards)])
    assert str(tiny_shards) in capsys.readouterr().out


def test_an_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'prepare'"):
        run_verb(["prepair"])


def test_without_a_verb_all_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_verb([])
    assert "convert" in capsys.readouterr().out
