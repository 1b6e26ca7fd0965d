"""What counts as a line of code."""

from bench.code_lines import code_lines, main
from tests.support.commands import answer

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


def test_lines_are_summed_by_package(tmp_path, monkeypatch) -> None:
    for name in ("megadec/cli.py", "megadec/data/a.py", "megadec/data/b/c.py", "tests/unit/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SOURCE)
    monkeypatch.setattr("bench.code_lines.ROOT", tmp_path)
    result = answer(main)
    assert result["packages"] == {"megadec": 6, "megadec/data": 12, "tests/unit": 6}
    assert result["bars"] == {"megadec_code_lines": 18, "tests_code_lines": 6}
