"""What counts as a line of code."""

from __future__ import annotations

import json

from bench.code_lines import code_lines, count, main
from tests.support import PROJECT

SOURCE = '''"""A module's docstring
of two lines."""

# a comment
import os  # beside code


def f(a,
      b):
    """A docstring."""
    text = """a string
    over two lines"""
    return text
'''


def test_blanks_comments_and_docstrings_are_no_code() -> None:
    assert code_lines(SOURCE) == len(["import", "def", "b):", "text", "over", "return"])


def test_the_sums_of_the_project_are_those_of_its_packages(capsys) -> None:
    main([])
    bars = json.loads(capsys.readouterr().out)["bars"]
    packages = count(PROJECT)
    assert bars["tests_code_lines"] == sum(lines for name, lines in packages.items() if name.startswith("tests"))
    assert bars["megadec_code_lines"] > packages["megadec/engine"] > 1000
