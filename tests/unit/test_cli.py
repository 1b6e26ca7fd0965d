"""Laws of the `megadec` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from megadec.cli import ROOT, SCRIPTS, run_verb
from megadec.common.errors import ConfigError


def test_every_verb_has_its_script() -> None:
    assert all((ROOT / script).is_file() for script in SCRIPTS.values())


def test_a_verb_runs_its_script_with_the_other_arguments(
    tiny_shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["megadec"])
    with pytest.raises(SystemExit) as ended:
        run_verb(["show", "--data", str(tiny_shards)])
    assert ended.value.code == 0
    assert str(tiny_shards) in capsys.readouterr().out


def test_an_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'prepare'"):
        run_verb(["prepair"])


def test_without_a_verb_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_verb([])
    assert "tools/convert.py" in capsys.readouterr().out
