"""The benchmark of conversions: ours and DeepSpeed's convert the same step, and each bar says whether it holds."""

import json

import pytest

from bench.export import OURS, PEER, ExportBenchOptions, bars, main
from megadec.common.errors import ConfigError

TINY = {
    "preset": "null", "hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_size": 16,
    "intermediate_size": 64, "vocabulary_size": 32000, "sequence_length": 32, "rows": 1,
}  # fmt: skip


def test_a_bar_holds_only_where_both_time_and_memory_are_within_it() -> None:
    made = {"largest_tensor_bytes": 100}
    figures = {"opening_seconds": 0.2, "writing_seconds": 1.4, "writing_bytes": 500_000_300}
    ways = {name: dict(figures) for name in (PEER, *OURS)}
    ways[PEER]["writing_seconds"] = 1.0
    ways["gguf"]["writing_seconds"] = 1.6
    ways["onnx"]["writing_bytes"] += 1
    found = bars(made, ways)
    assert [found[way]["holds"] for way in OURS] == [True, False, False]
    assert found["gguf"]["writing_over_zero_to_fp32"] == 1.6


@pytest.mark.parametrize(("changed", "words"), [({"rounds": 0}, "rounds=0"), ({"alone": "ggml"}, "alone='ggml'")])
def test_a_wrong_request_is_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ExportBenchOptions(**changed)  # type: ignore[arg-type]


@pytest.mark.slow
def test_every_way_converts_the_same_step_and_tells_seconds_and_memory(tmp_path, capsys) -> None:
    arguments = [f"--{name}={value}" for name, value in TINY.items()]
    main([*arguments, "--rounds=1", "--parity=quick", f"--folder={tmp_path}"])
    result = json.loads(capsys.readouterr().out)
    assert list(result["ways"]) == [PEER, *OURS]
    for way in OURS:
        assert result["ways"][way]["writing_seconds"] > 0
        assert result["ways"][way]["parity_bytes"] > 0
        assert result["bars"][way]["holds"] in (True, False)
    assert list(tmp_path.iterdir()) == []
