"""Two ranks that train on shards from afar share one folder of them, and learn what they would learn from a disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import losses_of, metrics_of, train_all


def test_ranks_that_share_a_folder_of_two_shards_have_the_losses_of_a_local_run(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], tiny_shards: Path
) -> None:
    shards = json.loads((tiny_shards / "index.json").read_text())["shards"]
    assert len(shards) > 3
    room = 2 * max(shard["bytes"] for shard in shards)
    cache = {"folder": str(tmp_path / "cache"), "bytes": room}
    afar = f"local://{tiny_shards}"  # fsspec's, which our own reading of paths and file:// does not know
    train = {"steps": 4}
    plan = []
    for name, place in (("here", str(tiny_shards)), ("afar", afar)):
        run = make_run(
            name,
            data={"train": {place: 1.0}, "cache": cache, "workers": 2},
            train=train,
            evaluate={"sets": {"x": place}},
        )
        plan.append({"run": str(run), "deepspeed": str(zero_file("zero1")), "options": []})
    train_all(tmp_path, plan)
    runs = tmp_path / "runs"
    assert losses_of(runs / "here") == losses_of(runs / "afar")
    measured = [[line["loss"] for line in metrics_of(runs / name, "evaluate")] for name in ("here", "afar")]
    assert measured[0] == measured[1]
    kept = list((tmp_path / "cache").glob("*.tar"))
    assert 0 < sum(path.stat().st_size for path in kept) <= room
    assert {path.stem for path in kept} <= {shard["sha256"] for shard in shards}
    assert not list((tmp_path / "cache").glob(".*.partial"))
