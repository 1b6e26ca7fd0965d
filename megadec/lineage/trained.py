"""What a run was trained on: from a step to its documents, from documents to the steps that read them.

Worked out from the data state in a checkpoint (data/shuffle.py), not replayed, and so is what the weights did not
learn from: steps without an update, documents that were skipped, windows that touch a damaged shard. The shards must
be there still, unchanged, where the run read them or where `data` says; only one that no step has read may be missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from megadec.common.config import from_dict, from_yaml, to_dict
from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.files import read_json
from megadec.data.dataset import DataSet, DocumentSpan
from megadec.data.shard_cache import DamagedShardError
from megadec.data.shuffle import Shuffle
from megadec.data.stages import StagedStream
from megadec.data.stream import TrainStream, Window
from megadec.engine.checkpoint.manifest import MANIFEST, RUN_FILE, checkpoints_in
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CHECKPOINTS
from megadec.engine.runs.open_pretrain import folders_of, open_sets, stream_of
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.stages import stage_values
from megadec.lineage.moved import moved_sets, renamed

NO_UPDATE = "no_update"
SKIPPED = "skip_documents"
DAMAGED_SHARD = "damaged_shard"
KEPT_STREAMS = 16
Shards = tuple[tuple[str, ...], ...]
"""By data set, the sha256 of some of its shards."""


class Trained:
    """What one run was trained on, open for questions.

    path: its folder, one of its checkpoints, or a YAML file, which says nothing of steps that were done. cache_folder:
    where remote shards are kept, in place of the run's own `data.cache.folder`. data: where its shards are now, if not
    where it read them (`moved_sets`). Raises CheckpointError where there is no run, ConfigError for one that reads no
    shards, ShardError for shards that are not found.
    """

    def __init__(self, path: Path, cache_folder: Path | None = None, data: Sequence[str] = ()) -> None:
        file = _run_file(path)
        self._folder = path
        self._manifest: Mapping[str, Any] | None = None
        self._skipped = Skipped(0)
        if (file.parent / MANIFEST).is_file():
            self._manifest = read_json(file.parent / MANIFEST, CheckpointError)
            state = self._manifest["data"]
            if not isinstance(state, dict) or "packing" not in state.get("stream", {}):
                raise ConfigError(f"{path} was not trained on shards, and only these name their documents")
            self._skipped = Skipped.from_manifest(self._manifest)
            self._newest_shards: Shards = tuple(map(tuple, state["skipped"]))
        run = from_yaml(PretrainRun, file)
        cache = run.data.cache if cache_folder is None else replace(run.data.cache, folder=str(cache_folder))
        if self._manifest is not None:
            begun = self._manifest["data"].get("stages", [self._manifest["data"]])
            mixtures = [stage.values["data"]["train"] for stage in stage_values(to_dict(run))]
            recorded = {
                folder: one["sha256"]
                for train, stage in zip(mixtures, begun, strict=False)  # later stages have not begun
                for folder, one in zip(train, stage["stream"]["sets"], strict=True)
            }
            run = from_dict(PretrainRun, renamed(to_dict(run), moved_sets(recorded, data, cache)))
        elif data:
            raise ConfigError(
                f"--data with {path}: without a checkpoint nothing says what its shards held; edit the file"
            )
        # The checkpoint has the ids of skipped documents; the file that named them may be gone.
        self._run = replace(run, data=replace(run.data, cache=cache, skip_documents=(), skip_documents_file=None))
        self._packs = any(one.values["data"]["packing"] == "best_fit" for one in stage_values(to_dict(run)))
        self._documents = {start.first_step: frozenset(start.documents) for start in self._skipped.starts}
        self._stream_without = lru_cache(KEPT_STREAMS)(self._open_stream)

    @property
    def last_step(self) -> int | None:
        """Of the newest checkpoint, or None where there is none."""
        return None if self._manifest is None else self._skipped.last_step

    def stream_at(self, step: int) -> TrainStream:
        """The sequence of steps as `step`, counted from 1, read it: without the shards that it went without.

        A step behind the checkpoint is shown as the run would do it now. Raises ConfigError and ShardError where the
        shards are not those of the checkpoint, DamagedShardError where one is damaged that the step may have read.
        """
        return self._whole_stream_at(step).at(step - 1)

    def _whole_stream_at(self, step: int) -> StagedStream:
        if self._manifest is None or (step > self._skipped.last_step and not self._packs):
            return self._stream_without(None)
        if self._packs:  # a run goes without the same shards in all its steps
            return self._stream_without(self._newest_shards)
        start = self._skipped.start_of(step)
        return self._stream_without(() if start is None else start.shards)

    def documents_of_step(self, step: int) -> list[dict[str, Any]]:
        """The sequences of a step's batch: sequence, set, window, and the documents in their order. `skipped` of a
        sequence or a document: why the weights have not learned from it.

        Raises ConfigError for a step that is none.
        """
        if step < 1:
            raise ConfigError(f"step={step} is not at least 1: steps are counted as metrics.jsonl counts them")
        stream = self.stream_at(step)
        sequences = []
        for sequence, window in enumerate(stream.windows_of(step - 1)):
            why = self._why(step, window)
            documents = [
                {
                    "id": span.id,
                    "source": span.source,
                    "tokens": span.tokens,
                    "skipped": SKIPPED if self._is_skipped(step, span.id) else why,
                }
                for span in stream.documents_of(window)
            ]
            folder = stream.sets[window.data_set][0].folder
            sequences.append(
                {"sequence": sequence, "set": folder, "window": window.window, "skipped": why, "documents": documents}
            )
        return sequences

    def steps_of_documents(self, ids: Sequence[str], until_step: int | None = None) -> list[dict[str, Any]]:
        """Where documents are in the sets, and every step and sequence up to `until_step` (the checkpoint's) with a
        part of them: in `seen` where the weights learned from it, in `skipped` with `why` where they did not.

        A document that is in no set is found nowhere; `notes` say where the answer has limits.
        """
        sets = [self._open_to_search(number, folder) for number, folder in enumerate(folders_of(self._run))]
        until = self._skipped.last_step if until_step is None else until_step
        answers: dict[str, dict[str, Any]] = {
            id: {"id": id, "found": [], "seen": [], "skipped": [], "notes": []} for id in ids
        }
        stream = self._whole_stream_at(self._skipped.last_step)
        begun = stream.begun(until)
        ends = [*(stage.first_step for stage in begun[1:]), until]
        for data in sets:
            for id, spans in data.find_documents(ids).items():
                for span in spans:
                    place = {"set": data.folder, "first_token": span.first_token, "tokens": span.tokens}
                    answers[id]["found"].append({**place, "source": span.source, "windows": []})
                    for stage, end in zip(begun, ends, strict=True):
                        for number, (known, _) in enumerate(stage.sets):
                            if known.folder == data.folder:
                                self._add_steps(answers[id], stage, end, number, span)
        for answer in answers.values():
            for name in ("seen", "skipped"):
                answer[name].sort(key=lambda one: (one["step"], one["sequence"]))
            answer["notes"] += self._notes(answer, sets)
        return list(answers.values())

    def _add_steps(self, answer: dict[str, Any], stage: TrainStream, end: int, number: int, span: DocumentSpan) -> None:
        """Add the steps of a stage up to `end` with a part of a document, which lies so in the stage's set `number`."""
        plans = [stage.plan(number) for number in range(len(stage.sets))]
        order = Shuffle([plan.windows for plan in plans], [weight for _, weight in stage.sets], stage.seed)
        windows = plans[number].windows_with(span)
        found = answer["found"][-1]
        found["windows"] = sorted({*found["windows"], *windows})
        for window in windows:
            for position in order.places_of(number, window, stage.place_of(end)):
                done, sequence = divmod(position - stage.first_place, stage.global_batch_size)
                if done < 0:  # before the stage began
                    continue
                step = stage.first_step + done + 1
                one = {"step": step, "sequence": sequence, "set": found["set"], "window": window}
                if why := self._why(step, Window(number, window), answer["id"]):
                    answer["skipped"].append({**one, "why": why})
                else:
                    answer["seen"].append(one)

    def _why(self, step: int, window: Window, id: str | None = None) -> str | None:
        """Why the weights have not learned from a window, or from a document in it, at a step; None where they have."""
        if self.stream_at(step).is_lost(window):
            return DAMAGED_SHARD
        if id is not None and self._is_skipped(step, id):
            return SKIPPED
        return NO_UPDATE if self._skipped.no_update(step) else None

    def _is_skipped(self, step: int, id: str) -> bool:
        start = self._skipped.start_of(step)
        return start is not None and id in self._documents[start.first_step]

    def _notes(self, answer: Mapping[str, Any], sets: Sequence[DataSet]) -> Iterator[str]:
        if not answer["found"]:
            for data in sets:
                for number in data.skipped:
                    name = data.index["shards"][number]["name"]
                    yield f"{data.folder}/{name} is damaged and was not searched; no step has read it"
        assert self._manifest is not None
        unknown = [one["step"] for one in answer["seen"] if self._skipped.start_of(one["step"]) is None]
        skipped = answer["id"] in self._manifest.get("task", {}).get("skipped_documents", ())
        if unknown and (skipped or (any(self._newest_shards) and not self._packs)):
            yield (
                f"the checkpoints do not say what steps {min(unknown)} to {max(unknown)} went without, so these count"
                " as having learned from it"
            )

    def _open_stream(self, skipped: Shards | None) -> StagedStream:
        """Without these shards; None: without those that are damaged now, where the run allows it."""
        if skipped is None:
            sets = open_sets(self._run)
        else:
            # What was recorded before a stage was added does not speak of the sets that it brought.
            known = dict(enumerate(skipped))
            sets = [
                self._open_without(folder, known.get(number, ())) for number, folder in enumerate(folders_of(self._run))
            ]
        stream = stream_of(self._run, sets)
        if self._manifest is not None:
            stream.check(self._manifest["data"])
        return stream

    def _open_without(self, folder: str, shards: Sequence[str]) -> DataSet:
        data = DataSet.open(folder, cache=self._run.data.cache, skip_damaged=True)
        without = data.numbers_of(shards)
        for number, wrong in data.skipped.items():
            if number not in without:
                raise DamagedShardError(f"{wrong} (the step has read it, or may have)")
        return data.without(dict.fromkeys(without, "the run went without it"))

    def _open_to_search(self, data_set: int, folder: str) -> DataSet:
        """The set without what is damaged now, which no step may have read: ids could not be found there."""
        data = DataSet.open(folder, cache=self._run.data.cache, skip_damaged=True)
        shards, damaged = data.index["shards"], dict(data.skipped)
        newest = self._newest_shards[data_set]
        ever = {*newest, *(one for start in self._skipped.starts for one in start.shards_of(data_set))}
        for number in data.numbers_of(sorted(ever)):
            # Its size may be right and a byte of an id wrong.
            if number not in damaged and (wrong := data.place.examine(shards[number], "hashes")):
                damaged[number] = wrong
        for number, wrong in damaged.items():
            sha256 = shards[number]["sha256"]
            if not (sha256 in newest if self._packs else self._skipped.always_without(data_set, sha256)):
                raise DamagedShardError(
                    f"{wrong} (steps of {self._folder} have read it, or may have, so ids must be found in it)"
                )
        return data.without(damaged)


def _run_file(path: Path) -> Path:
    """The YAML file of a run: `path` itself, a checkpoint's, or that of the newest checkpoint of a run's folder."""
    if path.is_file():
        return path
    for folder in (path, *reversed(checkpoints_in(path / CHECKPOINTS))):
        if (folder / RUN_FILE).is_file():
            return folder / RUN_FILE
    raise CheckpointError(
        f"{path} holds no {RUN_FILE} and no checkpoint with one: name a run's folder, a checkpoint, or the YAML file"
    )
