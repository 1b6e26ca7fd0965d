"""The bench of the operations between the products: a row for each, and what there was no time for."""

import pytest

from bench.kernels import main
from tests.support.commands import answer

TINY = ["--hidden", "64", "--tensor_bytes", "16384", "--rounds", "1", "--compiled", "false"]


def test_every_operation_is_measured_forward_and_backward_beside_the_formula() -> None:
    result = answer(main, *TINY, "--seconds", 60)
    names = ["rms_norm", "stream_norm", "swiglu", "rotate_pair", "norm_rotate"]
    assert [(row["operation"], row["pass"]) for row in result["rows"]] == [
        (name, which) for name in names for which in ("forward", "backward")
    ]
    for row in result["rows"]:
        assert set(row["cases"]) >= {"ours", "torch"}
        assert row["cases"]["torch"]["speed_ratio"] == 1.0
        assert row["bytes"] > 16384
    assert result["skipped"] == []


def test_what_there_was_no_time_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 40))
    monkeypatch.setattr("bench.kernels.monotonic", lambda: next(clock))
    result = answer(main, *TINY, "--seconds", 60)
    assert {row["operation"] for row in result["rows"]} == {"rms_norm"}
    assert result["skipped"] == [f"{n} of hidden 64" for n in ("stream_norm", "swiglu", "rotate_pair", "norm_rotate")]
