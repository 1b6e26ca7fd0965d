"""Laws of the `megadec` command."""

import importlib

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


def test_an_unknown_verb_names_the_nearest_and_without_one_all_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'prepare'"):
        run_verb(["prepair"])
    run_verb([])
    assert "convert" in capsys.readouterr().out
