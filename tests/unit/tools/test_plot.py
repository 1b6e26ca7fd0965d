"""What the plot reads of metrics.jsonl, and that it draws it."""

import json
import math
import sys
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, InputError, MissingExtraError
from megadec.engine.metrics.plot import main, read_curves, running_mean


def write_run(folder: Path, steps: int, held_out: bool = True) -> Path:
    folder.mkdir(parents=True)
    lines: list[dict[str, object]] = []
    for step in range(steps + 1):
        if step:
            values = {"loss": 8 / step, "learning_rate": 0.01, "tokens_per_second": 5e3, "grad_norm": None}
            lines.append({"kind": "train", "step": step, "tokens": step * 100, **values})
        if held_out and step % 10 == 0:
            lines.append({"kind": "evaluate", "step": step, "set": "wiki", "bits_per_character": 9.0 - step / 50})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return folder


def test_a_run_is_read_as_curves_up_to_a_line_that_a_killed_one_left_unfinished(tmp_path):
    run = write_run(tmp_path / "small", 20)
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"kind": "train", "st')
    curves = read_curves(run)
    assert curves.name == "small"
    assert curves.train["step"] == list(range(1, 21))
    assert curves.train["tokens"][-1] == 2000
    assert curves.held_out == {"wiki": [(0.0, 0.0, 9.0), (10.0, 1000.0, 8.8), (20.0, 2000.0, 8.6)]}


@pytest.mark.parametrize("x", ["step", "tokens"])
def test_several_runs_with_and_without_held_out_sets_become_one_picture(tmp_path, x, capsys):
    runs = [str(write_run(tmp_path / name, steps, steps > 20)) for name, steps in (("a", 30), ("b", 12))]
    output = tmp_path / "curves.png"
    main(["--run", *runs, "--output", str(output), "--x", x])
    assert output.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{output}\n"
    main(["--run", f"{runs[1]}/metrics.jsonl", "--output", str(output), "--x", x])


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
        (None, r"metrics\.jsonl does not exist"),
    ],
)
def test_a_file_that_is_no_runs_is_refused_by_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match=words):
        read_curves(tmp_path)


def test_another_format_than_png_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not end in"):
        main(["--run", str(tmp_path), "--output", str(tmp_path / "a.pdf")])


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'megadec\[plot\]'"):
        main(["--run", str(write_run(tmp_path / "a", 3)), "--output", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()
