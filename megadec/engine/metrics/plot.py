"""Pictures of what runs wrote into metrics.jsonl: loss, held-out bits per character, learning rate, tokens per second;
and of a classifier's confusion matrix.

In: run folders, or metrics.jsonl files; a matrix and its labels. Out: a PNG. The loss is drawn as the mean of
neighbouring steps over the steps themselves in a pale line, so that both the trend and the noise can be seen.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megadec.common.config import parse
from megadec.common.errors import ConfigError, InputError, needs_extra
from megadec.common.files import whole_file
from megadec.common.log import logger
from megadec.engine.metrics.options import FILE_NAME

log = logger(__name__)

POINTS_OF_A_MEAN = 50
PANEL_INCHES = (9.0, 3.0)
CELL_INCHES, LEAST_INCHES, MOST_INCHES = 0.55, 5.0, 24.0
# More labels than this leave no room for a number in each cell.
MOST_LABELS_WITH_NUMBERS = 40
# Parts of file names of fonts that have Chinese characters, the better ones first.
CHINESE_FONTS = ("notosanscjk", "notosanssc", "sourcehansans", "wqy", "simhei", "msyh", "pingfang", "song", "cjk")

# Field of a line of kind "train" (but for held_out), title of its panel.
PANELS = (
    ("loss", "loss (nats a token)"),
    ("held_out", "held-out bits per character"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "tokens per second"),
)


@dataclass(frozen=True)
class PlotOptions:
    """run: run folders or metrics.jsonl files, one curve each. output: the PNG. x: what the horizontal axis counts."""

    run: tuple[Path, ...]
    output: Path
    x: Literal["step", "tokens"] = "step"

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("run names no folder; give at least one run")
        if self.output.suffix != ".png":
            raise ConfigError(f"output={self.output} does not end in .png; that is what is written")


def main(argv: Sequence[str]) -> None:
    """Draw the curves of runs, and print the picture's name."""
    options = parse(PlotOptions, argv, description="Draw the metrics of runs.")
    draw([read_curves(path) for path in options.run], options.output, options.x)
    print(options.output)


@dataclass
class Curves:
    """One run: `train` field -> value by line, `held_out` set -> [(step, tokens, bits per character)]."""

    name: str
    train: dict[str, list[float]] = field(default_factory=dict)
    held_out: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)


def read_curves(path: Path) -> Curves:
    """Read a run's metrics.jsonl. A last line that a killed run left unfinished is passed over.

    Raises InputError for a missing file, a line that is no JSON, or a run without a single step.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} does not exist; a run writes it from its first step on")
    curves = Curves(name=file.resolve().parent.name)
    fields = ("step", "tokens", *(name for name, _ in PANELS if name != "held_out"))
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            continue
        values = _line(line, file, number)
        if values["kind"] == "train":
            for name in fields:
                curves.train.setdefault(name, []).append(_number(values.get(name)))
        elif values["kind"] == "evaluate":
            tokens = curves.train.get("tokens", [0.0])[-1]
            bits = _number(values.get("bits_per_character"))
            curves.held_out.setdefault(str(values["set"]), []).append((float(values["step"]), tokens, bits))
    if not curves.train:
        raise InputError(f"{file} has no line of a training step")
    return curves


def _line(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}, line {number}: not JSON ({error.msg}); a run writes one object a line") from error
    if not isinstance(values, dict) or "kind" not in values or "step" not in values:
        raise InputError(f"{file}, line {number}: no 'kind' or no 'step'; a run writes both in every line")
    return values


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and its neighbours, `width` in all, fewer at both ends; not-a-number is left out."""
    means = []
    for position in range(len(values)):
        part = values[max(0, position - width // 2) : position + (width + 1) // 2]
        finite = [value for value in part if math.isfinite(value)]
        means.append(float(np.mean(finite)) if finite else math.nan)
    return means


def _figure(width_inches: float, height_inches: float) -> Any:
    with needs_extra("matplotlib", "plot"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def draw(runs: Sequence[Curves], output: Path, x: str) -> None:
    """Draw the runs over each other, a panel for each quantity. Raises MissingExtraError and StorageError."""
    panels = [panel for panel in PANELS if panel[0] != "held_out" or any(run.held_out for run in runs)]
    figure = _figure(PANEL_INCHES[0], PANEL_INCHES[1] * len(panels))
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, title) in zip(all_axes, panels, strict=True):
        for number, run in enumerate(runs):
            if name == "held_out":
                _draw_held_out(axes, run, x, number if len(runs) > 1 else None)
                continue
            places, values, color = run.train[x], run.train[name], f"C{number}"
            if name != "learning_rate":
                axes.plot(places, values, color=color, alpha=0.25, linewidth=0.8)
                values = running_mean(values, max(1, len(values) // POINTS_OF_A_MEAN))
            axes.plot(places, values, color=color, label=run.name)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    all_axes[-1].set_xlabel(x)
    _write(figure, output)


def _draw_held_out(axes: Any, run: Curves, x: str, number: int | None) -> None:
    """One curve a set, told apart by markers; a run alone (`number` None) has a color for each set too."""
    for place, (marker, (name, points)) in enumerate(zip("os^vDPX*" * 8, sorted(run.held_out.items()), strict=False)):
        steps, tokens, bits = zip(*points, strict=True)
        color = f"C{place if number is None else number}"
        places = tokens if x == "tokens" else steps
        axes.plot(places, bits, color=color, marker=marker, markersize=4, label=f"{run.name}: {name}")


def draw_confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str], output: Path, title: str = "") -> None:
    """Draw a confusion matrix: a row for each true label, a column for each that was said, darker for a larger share of
    the row. Where no installed font has the labels' characters they are numbered, and the picture and the log say so.

    Raises MissingExtraError and StorageError.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    assert counts.shape == (len(labels), len(labels)), "a row and a column for each label"
    side = min(MOST_INCHES, max(LEAST_INCHES, 2.0 + CELL_INCHES * len(labels)))
    figure = _figure(side, side)
    font, names = font_with({character for text in (*labels, title) for character in text}), list(labels)
    axes = figure.subplots()
    if font:
        axes.set_title(title, font=font)
    else:
        log.warning("no installed font has all characters of the labels; %s numbers them: %s", output, names)
        axes.set_title("labels numbered in their order: no installed font has their characters", fontsize="small")
        names = [str(number) for number in range(len(labels))]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(labels)), names, rotation=60, ha="right", rotation_mode="anchor", font=font)
    axes.set_yticks(range(len(labels)), names, font=font)
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    if len(labels) <= MOST_LABELS_WITH_NUMBERS:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize="x-small", color=color)
    _write(figure, output)


def _write(figure: Any, output: Path) -> None:
    with whole_file(output) as stream:
        figure.savefig(stream, format="png", dpi=120)


def font_with(characters: set[str]) -> Any:
    """A font (`matplotlib.font_manager.FontProperties`) that has these characters; None where no such is installed."""
    from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, get_font

    wanted = {ord(character) for character in characters if not character.isspace()}
    files = sorted((rank, file) for file in findSystemFonts() if (rank := _chinese_rank(file)) is not None)
    for font in (FontProperties(), *(FontProperties(fname=file) for _, file in files)):
        if wanted <= get_font(findfont(font)).get_charmap().keys():
            return font
    return None


def _chinese_rank(file: str) -> int | None:
    name = Path(file).name.lower().replace("-", "").replace("_", "")
    return next((rank for rank, part in enumerate(CHINESE_FONTS) if part in name and "bold" not in name), None)
