"""One page of what the benchmarks printed: tables, and pictures where matplotlib is installed.

    python -m bench.page --input FOLDER --output FOLDER

In: a folder with status.tsv (name, exit status, seconds, limit, command) and NAME.json, NAME.err of each benchmark, as
gpu.sh leaves them. Out: a folder with README.md, results.json with everything that came in, and a picture for each kind
of benchmark (NAME up to the first hyphen). It knows no benchmark's format: whatever has rows of the same fields becomes
a table, and known fields are drawn, so a benchmark that says more needs no change here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.config import parse
from megadec.common.errors import InputError, run_main
from megadec.common.files import whole_file, write_json
from megadec.common.log import logger

log = logger(__name__)

ENVIRONMENT = "environment"  # of bench.measure; the same for all, shown once
FOLDED = ("options", "shape", "versions")
ERROR_LINES = 25
OUTPUT_CHARACTERS = 4000
MOST_PANELS = 8
# Three rows say it; what a lent machine gives back is eight files, and the timeline of a step is one of them.
NOT_DRAWN = ("loss",)
MOST_BARS = 40
SCALARS = (str, int, float, bool, type(None))
MEANINGS = {"0": "done", "124": "cut off at its time limit", "137": "killed", "late": "no time was left for it"}
MEANINGS |= {"missing": "not in this checkout", "2": "refused the request"}
# Fields worth a picture, and what the axis says: of each group the first that a table has.
SPEED = {
    "tokens_per_second": "tokens a second",
    "tflops": "TFLOP/s",
    "gigabytes_per_second": "GB/s",
    "milliseconds": "milliseconds",
    "median_seconds": "seconds",
    "seconds": "seconds",
}
MEMORY = dict.fromkeys(("peak_memory_bytes", "peak_bytes", "memory_bytes"), "peak memory")
DRAWN = SPEED | MEMORY


@dataclass(frozen=True)
class PageOptions:
    """input: the folder of outputs. output: the folder of the page."""

    input: Path
    output: Path


@dataclass(frozen=True)
class Outcome:
    """One benchmark. result: what it printed as JSON, None where it printed none; output: what it printed then."""

    name: str
    status: str
    seconds: str
    limit: str
    command: str
    result: Any
    output: str
    errors: str

    @property
    def meaning(self) -> str:
        """The status in words."""
        return MEANINGS.get(self.status, f"failed with status {self.status}")


@dataclass(frozen=True)
class Table:
    """Rows by name, each with fields; `title` is the way to them through the JSON. listed: rows are named by number."""

    title: str
    rows: dict[str, dict[str, Any]]
    listed: bool = False

    @property
    def fields(self) -> list[str]:
        """All fields of the rows, in the order in which they appear."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row))


def read_outcomes(folder: Path) -> list[Outcome]:
    """The benchmarks of a folder in the order in which they ran. Raises InputError when it is no such folder."""
    file = folder / "status.tsv"
    if not file.is_file():
        raise InputError(f"{file} does not exist; gpu.sh writes a line there for each benchmark")
    outcomes = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split("\t")
        if len(parts) != 5:
            raise InputError(
                f"{file}, line {number}: {len(parts)} columns; name, status, seconds, limit, command are 5"
            )
        name, status, seconds, limit, command = parts
        output, errors = (_text(folder / f"{name}{ending}") for ending in (".json", ".err"))
        outcomes.append(Outcome(name, status, seconds, limit, command, _json(output), output, errors))
    return outcomes


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _json(text: str) -> Any:
    """The whole text as JSON, or else its last line: a library may have spoken before."""
    for candidate in (text, *text.strip().splitlines()[-1:]):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return None


def tables(value: Any, title: str = "") -> Iterator[Table]:
    """What has rows with fields in a JSON value: mappings of mappings, lists of mappings, mappings of scalars."""
    if isinstance(value, Mapping):
        rows = {str(name): row for name, row in value.items() if isinstance(row, Mapping) and _scalars(row)}
        if len(rows) > 1 and set.intersection(*(set(_scalars(row)) for row in rows.values())):
            yield Table(title, {name: _scalars(row) for name, row in rows.items()})
        else:
            rows = {}
        if facts := _scalars(value):
            yield Table(title, {"": facts})
        for name, inner in value.items():
            if name in rows:
                deeper = {key: part for key, part in inner.items() if not isinstance(part, SCALARS)}
                yield from tables(deeper, f"{title} {name}".strip())
            elif not isinstance(inner, SCALARS):
                yield from tables(inner, f"{title} {name}".strip())
    elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        nested = {
            f"{_label(row)} {name}": _scalars(inner)
            for row in value
            for cases in row.values()
            if isinstance(cases, Mapping)
            for name, inner in cases.items()
            if isinstance(inner, Mapping)
        }
        numbered = {str(number): _scalars(row) for number, row in enumerate(value, start=1)}
        yield Table(title, nested) if nested else Table(title, numbered, listed=True)


def _label(row: Mapping[str, Any]) -> str:
    """What a row with tables of its own is called: its words, and its numbers that are no sizes."""
    sizes = ("bytes", "tokens", "flops")
    words = [str(one) for one in row.values() if isinstance(one, str)]
    return " ".join(words + [str(one) for key, one in row.items() if type(one) is int and not key.endswith(sizes)])


def _scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items() if isinstance(value, SCALARS)}


def shown(field: str, value: Any) -> str:
    """A figure as a person reads it, by the unit that its field's name ends in."""
    if value is None or isinstance(value, bool | str):
        return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
    if field.endswith("bytes"):
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if field.endswith("bytes_per_second"):
        return f"{value / 1e9:,.0f} GB/s"
    if field.endswith("flops_per_second") or field == "flops":
        return f"{value / 1e12:,.2f} TFLOP/s"
    if field.endswith(("fraction", "share", "utilization")) or field.startswith("share"):
        return f"{100 * value:.1f} %"
    if field.endswith("seconds") and not field.endswith("milliseconds") and abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def markdown(table: Table) -> list[str]:
    """The lines of a table; a single row without a name stands upright."""
    heading = [f"**{table.title}**", ""] if table.title else []
    if table.listed or table.title.startswith(FOLDED):
        body = markdown(Table("", table.rows))
        return [f"<details><summary>{table.title}</summary>", "", *body, "</details>", ""]
    if list(table.rows) == [""]:
        facts = table.rows[""]
        return [*heading, *(f"- {field}: {shown(field, value)}" for field, value in facts.items()), ""]
    fields = table.fields
    lines = [*heading, f"| | {' | '.join(fields)} |", f"|---{'|---' * len(fields)}|"]
    for name, row in table.rows.items():
        lines.append(f"| {name} | {' | '.join(shown(field, row.get(field)) for field in fields)} |")
    return [*lines, ""]


def page(outcomes: Sequence[Outcome], pictures: Mapping[str, str]) -> str:
    """The page: how each benchmark ended, then what each one found, or what it said before it failed."""
    lines = ["# Benchmarks", ""]
    lines += ["| benchmark | outcome | seconds | limit |", "|---|---|---|---|"]
    lines += [f"| {one.name} | {one.meaning} | {one.seconds} | {one.limit} |" for one in outcomes]
    lines.append("")
    environments = [one.result[ENVIRONMENT] for one in outcomes if _has_environment(one.result)]
    for table in tables(environments[0]) if environments else ():
        lines += markdown(table)
    seen: set[str] = set()
    for one in outcomes:
        lines += [f"## {one.name}", ""]
        if one.command:
            lines += [f"`{one.command}`", ""]
        kind = kind_of(one.name)
        if kind in pictures and kind not in seen:
            lines += [f"![{kind}]({pictures[kind]})", ""]
            seen.add(kind)
        found = (
            {k: v for k, v in one.result.items() if k != ENVIRONMENT} if _has_environment(one.result) else one.result
        )
        for table in tables(found):
            lines += markdown(table)
        if one.result is None and one.output:
            lines += ["```", one.output[-OUTPUT_CHARACTERS:].strip(), "```", ""]
        if one.status != "0":
            lines += [f"{one.meaning[0].upper()}{one.meaning[1:]}."]
            last = one.errors.strip().splitlines()[-ERROR_LINES:]
            lines += ["", "```", *last, "```", ""] if last else [""]
    return "\n".join(lines).rstrip() + "\n"


def _has_environment(result: Any) -> bool:
    return isinstance(result, Mapping) and isinstance(result.get(ENVIRONMENT), Mapping)


def kind_of(name: str) -> str:
    """The benchmark's module: several runs of it share one picture."""
    return name.partition("-")[0]


def panels(outcomes: Sequence[Outcome], kind: str) -> list[tuple[str, str, dict[str, float]]]:
    """(title, field, bars by name) for each picture of a kind's tables: of each its speed and its memory."""
    found = []
    for one in outcomes:
        for table in tables(one.result) if kind_of(one.name) == kind else ():
            title = f"{one.name} {table.title}".strip()
            for group in (SPEED, MEMORY):
                field = next((name for name in group if name in table.fields and not table.listed), "")
                bars = {n: float(r[field]) for n, r in table.rows.items() if isinstance(r.get(field), int | float)}
                names = list(bars) if len(bars) > 1 else []
                found += [
                    (title, field, {name: bars[name] for name in names[first : first + MOST_BARS]})
                    for first in range(0, len(names), MOST_BARS)
                ]
    return found[:MOST_PANELS]


def draw(outcomes: Sequence[Outcome], folder: Path) -> dict[str, str]:
    """Write a picture for each kind that has something to draw; (kind -> file name). None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("matplotlib is not installed: the page has no pictures")
        return {}
    pictures = {}
    for kind in dict.fromkeys(kind_of(one.name) for one in outcomes):
        parts = [] if kind in NOT_DRAWN else panels(outcomes, kind)
        if not parts:
            continue
        heights = [0.6 + 0.24 * len(bars) for _, _, bars in parts]
        figure = Figure(figsize=(9.0, sum(heights) + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, field, bars) in zip(all_axes, parts, strict=True):
            drawn = axes.barh(list(bars), list(bars.values()), color="C1" if "bytes" in field else "C0")
            axes.bar_label(drawn, labels=[shown(field, value) for value in bars.values()], padding=3, fontsize="small")
            axes.invert_yaxis()
            axes.margins(x=0.15)
            axes.set_title(f"{title}: {DRAWN[field]}", fontsize="small", loc="left")
            axes.tick_params(labelsize="small")
        pictures[kind] = f"{kind}.png"
        with whole_file(folder / pictures[kind]) as stream:
            figure.savefig(stream, format="png", dpi=100)
    return pictures


def main(argv: Sequence[str]) -> None:
    """Parse, read, draw, write."""
    options = parse(PageOptions, argv, description="One page of what the benchmarks printed.")
    outcomes = read_outcomes(options.input)
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "results.json", {one.name: vars(one) for one in outcomes})
    pictures = draw(outcomes, options.output)
    with whole_file(options.output / "README.md", "w") as stream:
        stream.write(page(outcomes, pictures))
    print(options.output / "README.md")


if __name__ == "__main__":
    run_main(main)
