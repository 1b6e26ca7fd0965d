"""How much code there is: lines without blanks, comments and docstrings, by package.

    python -m bench.code_lines

Out: one JSON object: `packages` (code lines of each package, folder of tests or folder of scripts) and `bars`, the
sums of megadec/ and tests/.
"""

import ast
import io
import json
import tokenize
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import ROOT, commit
from megadec.common.errors import ConfigError, run_main

FOLDERS = ("megadec", "tests", "launch", "tools", "bench", "tokenizer", "samples")
BESIDE_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(source: str) -> int:
    """Lines that hold code; a string over several lines counts as all of them, a docstring as none."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in BESIDE_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def count(root: Path) -> dict[str, int]:
    """Code lines by package: `megadec/engine`, `tests/unit`, `tools`; a file beside packages counts for its folder."""
    packages: Counter[str] = Counter()
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            below = path.relative_to(root).parent.parts
            packages["/".join(below[:2])] += code_lines(path.read_text(encoding="utf-8"))
    return dict(sorted(packages.items()))


def total(packages: dict[str, int], folder: str) -> int:
    """Code lines of a folder with all its packages."""
    return sum(lines for name, lines in packages.items() if name.split("/")[0] == folder)


def main(argv: Sequence[str]) -> None:
    """Count, print."""
    if argv:
        raise ConfigError(f"unexpected argument {argv[0]!r}; python -m bench.code_lines takes none")
    packages = count(ROOT)
    bars = {f"{folder}_code_lines": total(packages, folder) for folder in ("megadec", "tests")}
    result: dict[str, Any] = {"bench": "code_lines", "commit": commit(), "packages": packages, "bars": bars}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
