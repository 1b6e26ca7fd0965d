"""The page of the benchmarks, from outputs as they were saved."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.page import Table, main, markdown, panels, read_outcomes, shown, tables
from megadec.common.errors import InputError

ENVIRONMENT = {"versions": {"torch": "2.11.0", "deepspeed": None}, "device": "NVIDIA H200", "threads": 16}
ZERO = {
    "bench": "zero",
    "environment": ENVIRONMENT,
    "options": {"ranks": 1, "execution": {"kernels": "auto"}},
    "product_flops_per_second": 7.9e14,
    "cases": {
        "plain": {"median_seconds": 0.25, "tokens_per_second": 65536.0, "losses": [9.1], "peak_memory_bytes": 2**31},
        "zero3": {"median_seconds": 0.256, "tokens_per_second": 64000.0, "losses": [9.1], "cost_fraction": 0.024},
    },
}
CASES = {"ours": {"milliseconds": 0.5}, "torch": {"milliseconds": 0.75}}
KERNELS = {
    "rows": [{"operation": "rms_norm", "hidden": 768, "bytes": 2**25, "cases": CASES}],
    "top": [{"name": "aten::mm", "calls": 12}, {"name": "aten::copy_", "calls": 3}],
}


def write_results(folder: Path) -> Path:
    """Outputs as gpu.sh leaves them: one well, one after a library's chatter, one failed, one late, one missing."""
    folder.mkdir()
    (folder / "zero-124m.json").write_text(json.dumps(ZERO, indent=1))
    (folder / "kernels.json").write_text(f"Setting accelerator to CUDA\n{json.dumps(KERNELS)}\n")
    (folder / "loss.json").write_text("")
    (folder / "loss.err").write_text("".join(f"line {number}\n" for number in range(60)) + "OutOfMemoryError: 9 GiB\n")
    (folder / "tests.json").write_text("3 passed in 1.2s\n")
    lines = (
        "zero-124m\t0\t41\t45\tpython -m bench.zero --preset 124m",
        "kernels\t0\t60\t80\tpython -m bench.kernels",
        "loss\t1\t5\t25\tpython -m bench.loss",
        "step\t124\t70\t70\tpython -m bench.step",
        "memory\tlate\t0\t0\tpython -m bench.memory",
        "attention\tmissing\t0\t0\t",
        "tests\t0\t9\t60\tpython -m pytest",
    )
    (folder / "status.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    main(["--input", str(write_results(folder / "in")), "--output", str(folder / "out")])
    return folder / "out"


def test_the_page_shows_every_benchmark_how_it_ended_and_its_figures(written: Path) -> None:
    text = (written / "README.md").read_text(encoding="utf-8")
    for outcome in (
        "| zero-124m | done | 41 | 45 |",
        "| loss | failed with status 1 | 5 | 25 |",
        "| step | cut off at its time limit | 70 | 70 |",
        "| memory | no time was left for it | 0 | 0 |",
        "| attention | not in this checkout | 0 | 0 |",
    ):
        assert outcome in text
    assert "| plain | 250 ms | 65,536 | 2.00 GiB |  |" in text
    assert "| zero3 | 256 ms | 64,000 |  | 2.4 % |" in text
    assert "- product_flops_per_second: 790.00 TFLOP/s" in text
    assert "| rms_norm 768 ours | 0.5 |" in text
    assert "<details><summary>top</summary>\n\n| | name | calls |" in text
    assert text.count("NVIDIA H200") == 1
    assert "3 passed in 1.2s" in text
    # What a failed one said last.
    assert "OutOfMemoryError: 9 GiB" in text
    assert "line 59" in text
    assert "line 10\n" not in text


def test_beside_the_page_lie_everything_that_came_in_and_a_picture_for_each_kind_with_bars(written: Path) -> None:
    names = sorted(path.name for path in written.iterdir())
    assert names == ["README.md", "kernels.png", "results.json", "zero.png"]
    assert (written / "zero.png").read_bytes().startswith(b"\x89PNG")
    assert "![zero](zero.png)" in (written / "README.md").read_text(encoding="utf-8")
    kept = json.loads((written / "results.json").read_text(encoding="utf-8"))
    assert [kept[name]["result"] for name in ("zero-124m", "kernels", "loss")] == [ZERO, KERNELS, None]
    assert kept["loss"]["errors"].startswith("line 0\n")


def test_a_kind_is_drawn_by_its_best_known_fields_and_many_bars_in_several_panels(tmp_path: Path) -> None:
    outcomes = read_outcomes(write_results(tmp_path / "in"))
    [(title, field, _)] = panels(outcomes, "zero")
    assert (title, field) == ("zero-124m cases", "tokens_per_second")
    assert panels(outcomes, "loss") == []
    many = replace(outcomes[0], result={"cases": {f"case {n}": {"tflops": n, "peak_bytes": n} for n in range(50)}})
    drawn = [(field, len(bars)) for _, field, bars in panels([many], "zero")]
    assert drawn == [("tflops", 40), ("tflops", 10), ("peak_bytes", 40), ("peak_bytes", 10)]


def test_without_matplotlib_there_is_a_page_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    main(["--input", str(write_results(tmp_path / "in")), "--output", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "results.json"]
    assert ".png" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_rows_are_found_at_any_depth_and_lists_of_numbers_are_left_to_the_json() -> None:
    value = {"a": {"forward": {"x": {"n": 1}, "y": {"n": 2, "m": 3}}, "top": [{"name": "mm", "calls": 2}]}, "l": [1, 2]}
    assert list(tables(value)) == [
        Table("a forward", {"x": {"n": 1}, "y": {"n": 2, "m": 3}}),
        Table("a top", {"1": {"name": "mm", "calls": 2}}, listed=True),
    ]
    assert list(tables(None)) == []
    # A bar in a text does not break its row.
    [*_, line, _] = markdown(Table("", {"case": {"name": "a|b\nc"}}))
    assert line == "| case | a\\|b c |"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("peak_memory_bytes", 3 * 2**29, "1.50 GiB"),
        ("peak_bytes", 2**20, "1.0 MiB"),
        ("bytes_per_second", 4.3e12, "4,300 GB/s"),
        ("product_flops_per_second", 7.88e14, "788.00 TFLOP/s"),
        ("cost_fraction", 0.0312, "3.1 %"),
        ("median_seconds", 0.0123456, "12.3 ms"),
        ("median_seconds", 12.3456, "12.35"),
        ("milliseconds", 0.5, "0.5"),
        ("tokens", 1234567, "1,234,567"),
        ("refused", True, "True"),
        ("share_of_product", None, ""),
    ],
)
def test_a_figure_is_shown_by_the_unit_in_its_fields_name(field: str, value: object, text: str) -> None:
    assert shown(field, value) == text


@pytest.mark.parametrize(("text", "words"), [(None, "does not exist"), ("zero\t0\n", "line 1: 2 columns")])
def test_a_folder_that_no_script_left_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "status.tsv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_outcomes(tmp_path)
