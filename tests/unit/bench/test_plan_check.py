"""The plan beside what was measured: recorded peaks, and one measured anew."""

import json
from typing import Any

import pytest

from bench.plan_check import main
from megadec.common.errors import ConfigError
from megadec.decoder.shape import DecoderShape
from megadec.plan.memory import memory_of
from megadec.plan.setup import Setup, Zero
from tests.support import PROJECT
from tests.support.commands import answer

RESULTS = PROJECT / "bench" / "results" / "plan_cpu"
FILES = sorted(RESULTS.glob("*.json"))


def cases() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    results = [(file.stem, json.loads(file.read_text())) for file in FILES]
    return [(name, result["options"], case) for name, result in results for case in result["cases"]]


def test_three_sizes_and_stages_1_and_3_were_measured() -> None:
    sizes = {(case["preset"], case["stage"]) for _, options, case in cases() if options["ranks"] == 1}
    assert len({preset for preset, _ in sizes}) >= 3
    assert {(preset, stage) for preset, _ in sizes for stage in (1, 3)} <= sizes


@pytest.mark.parametrize(("name", "options", "case"), cases())
def test_the_plan_is_within_a_tenth_of_the_measured_peak(
    name: str, options: dict[str, Any], case: dict[str, Any]
) -> None:
    for way in ("in_use", "as_run"):
        assert abs(case[way]["error_above_base"]) < 0.1
        assert abs(case[way]["error_of_whole"]) < 0.1
    shape = DecoderShape.from_preset(case["preset"], max_position_embeddings=options["sequence_length"])
    sizes = (options["precision"], options["ranks"], 1, options["rows"], options["sequence_length"])
    setup = Setup(shape, Zero(stage=case["stage"]), *sizes, device="cpu", saves_behind=True)
    parts = memory_of(setup).parts
    in_use = sum(size for part, size in parts.items() if part not in ("framework", "kept"))
    planned = (case["planned_bytes"], case["planned_kept_bytes"])
    assert (in_use, parts["kept"]) == planned, "the plan changed: run bench/plan_check.py again"


def test_a_stage_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="stages: 7 has no file"):
        main(["--stages", "7"])


@pytest.mark.slow
def test_a_peak_measured_now_is_within_a_tenth_of_the_plan() -> None:
    small = ("--presets", "10m", "--rows", 2, "--sequence_length", 256, "--precision", "fp32", "--keep", "false")
    for case in answer(main, *small)["cases"]:
        assert abs(case["in_use"]["error_above_base"]) < 0.1
