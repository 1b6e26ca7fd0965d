"""The pages of docs/ say what is: the options page is what the dataclasses give, and every option has a sentence."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from tests.support import PROJECT

BUILDER: dict[str, Any] = runpy.run_path(str(PROJECT / "docs" / "build_options.py"))


def test_the_options_pages_are_what_the_dataclasses_give() -> None:
    for path, text in BUILDER["pages"]():
        assert path.read_text(encoding="utf-8") == text, f"{path} is old: run python docs/build_options.py"


@pytest.mark.parametrize(("command", "kind"), BUILDER["COMMANDS"], ids=lambda value: str(value))
def test_every_option_says_what_it_is(command: str, kind: type) -> None:
    texts = {option.name: option.help for option in BUILDER["options_of"](kind)}
    silent = [name for name, text in texts.items() if not text.endswith(".") or text.startswith("see ")]
    assert not silent, f"{command}: the docstring of the dataclass has no sentence for {', '.join(silent)}"


def test_no_readme_is_longer_than_130_lines() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        assert len((PROJECT / name).read_text(encoding="utf-8").splitlines()) <= 130, name
