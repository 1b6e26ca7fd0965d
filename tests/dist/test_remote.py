"""Two ranks that train on shards from afar share one folder of them, and learn what they would learn from a disk."""

import json

from tests.support.tiny_runs import TinyRuns


def test_ranks_that_share_a_folder_of_two_shards_have_the_losses_of_a_local_run(runs: TinyRuns) -> None:
    shards = json.loads((runs.shards / "index.json").read_text())["shards"]
    assert len(shards) > 3
    room, folder = 2 * max(shard["bytes"] for shard in shards), runs.folder / "cache"
    plan = []
    # local:// is fsspec's, which our own reading of paths and file:// does not know.
    for name, place in (("here", str(runs.shards)), ("afar", f"local://{runs.shards}")):
        data = {"train": {place: 1.0}, "cache": {"folder": str(folder), "bytes": room}, "workers": 2}
        plan.append(runs.training(name, "zero1", data=data, train={"steps": 4}, evaluate={"sets": {"x": place}}))
    runs.train(*plan)
    assert runs.losses("here") == runs.losses("afar")
    here, afar = ([line["loss"] for line in runs.metrics(name, "evaluate")] for name in ("here", "afar"))
    assert here == afar
    kept = list(folder.glob("*.tar"))
    assert 0 < sum(path.stat().st_size for path in kept) <= room
    assert {path.stem for path in kept} <= {shard["sha256"] for shard in shards}
    assert not list(folder.glob(".*.partial"))
