"""What the plot reads of metrics.jsonl, and that it draws it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, InputError, MissingExtraError
from megadec.engine.metrics.plot import draw, main, read_curves, running_mean


def write_run(folder: Path, steps: int, end: str = "\n") -> Path:
    folder.mkdir(parents=True)
    lines = [{"kind": "evaluate", "step": 0, "set": "wiki", "bits_per_character": 9.0}]
    for step in range(1, steps + 1):
        values = {"step": step, "tokens": step * 100, "loss": 8 / step, "learning_rate": 0.01, "tokens_per_second": 5e3}
        lines.append({"kind": "train", **values, "grad_norm": None})
        if step % 10 == 0:
            lines.append({"kind": "evaluate", "step": step, "set": "wiki", "bits_per_character": 9.0 - step / 50})
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + end, encoding="utf-8")
    return folder


def test_a_run_is_read_as_curves_over_steps_and_tokens(tmp_path):
    curves = read_curves(write_run(tmp_path / "small", 20))
    assert curves.name == "small"
    assert curves.train["step"] == list(range(1, 21))
    assert curves.train["tokens"][-1] == 2000
    assert curves.held_out == {"wiki": [(0.0, 0.0, 9.0), (10.0, 1000.0, 8.8), (20.0, 2000.0, 8.6)]}


def test_a_line_that_a_killed_run_left_unfinished_is_passed_over(tmp_path):
    run = write_run(tmp_path / "killed", 5)
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"kind": "train", "st')
    assert read_curves(run).train["step"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("x", ["step", "tokens"])
def test_several_runs_become_one_picture(tmp_path, x, capsys):
    runs = [str(write_run(tmp_path / name, steps)) for name, steps in (("a", 30), ("b", 12))]
    output = tmp_path / "curves.png"
    main(["--run", *runs, "--output", str(output), "--x", x])
    assert output.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{output}\n"


def test_a_run_without_held_out_sets_is_drawn(tmp_path):
    write_run(tmp_path / "a", 3)
    curves = read_curves(tmp_path / "a" / "metrics.jsonl")
    curves.held_out.clear()
    draw([curves], tmp_path / "a.png", "step")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_running_mean_is_over_neighbours_and_leaves_out_what_is_no_number():
    assert running_mean([1, 2, 3, 4, 5], 3) == [1.5, 2, 3, 4, 4.5]
    assert running_mean([1, math.nan, 3], 3) == [1, 2, 3]
    assert running_mean([4, 2], 1) == [4, 2]
    assert math.isnan(running_mean([math.inf], 1)[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json\n", "line 1: not JSON"),
        ('{"kind": "train", "step": 1}\n{"loss": 1}\n', "line 2: no 'kind'"),
        ('{"kind": "evaluate", "step": 0, "set": "a", "bits_per_character": 1}\n', "no line of a training step"),
        ("", "no line of a training step"),
    ],
)
def test_a_file_that_is_no_runs_is_refused_by_line(tmp_path, text, words):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match=words):
        read_curves(tmp_path)


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl does not exist"):
        read_curves(tmp_path)


def test_another_format_than_png_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not end in"):
        main(["--run", str(tmp_path), "--output", str(tmp_path / "a.pdf")])


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'megadec\[plot\]'"):
        main(["--run", str(write_run(tmp_path / "a", 3)), "--output", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()
