"""The listing is the architecture: what may import what, and through which door a heavy library comes in."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import PROJECT

ORDER = [
    "common", "corpus", "data", "decoder", "decoding", "engine", "export", "finetune", "lineage", "plan", "pretrain",
    "ray", "rehearse", "serve",
]  # fmt: skip
SCRIPTS = ("launch", "tools", "bench", "tests", "tokenizer", "samples")
THIS = Path(__file__).name  # it names the retired words
MOST_FILES = 20  # Python files in one folder

# A library and the only files below megadec/ that may import it: a path, a folder, or the beginning of a file's name.
DOORS = {
    "deepspeed": ["engine/zero/engine.py"],
    "webdataset": ["corpus/shards.py", "data/"],
    "fsspec": ["corpus/sources/places.py", "data/shard_folders.py"],
    "transformers": ["export/huggingface/export.py"],
    "ray": ["ray/"],
    "onnx": ["export/onnx/"],
    "onnxscript": ["export/onnx/"],
    "onnxruntime": ["export/onnx/"],
    "gguf": ["export/gguf/"],
    "cyllama": ["export/gguf/llama_cpp.py"],
    "starlette": ["serve/http/"],
    "llguidance": ["serve/grammar.py"],
    "uvicorn": ["serve/server.py", "serve/connections.py"],
    "prometheus_client": ["serve/metrics.py"],
    "sklearn": ["corpus/train_quality.py", "finetune/score.py"],
    "sacrebleu": ["finetune/translate.py"],
    "sentencepiece": ["common/vocabularies.py", "corpus/vocabulary/learn.py", "corpus/vocabulary/train.py"],
    "tokenizers": ["common/vocabularies.py"],
    "jsonargparse": ["common/config.py"],
    "rensa": ["corpus/dedup/near.py"],
    "jieba": ["corpus/words/segment.py"],
    "rjieba": ["corpus/words/segment.py"],
    "gensim": ["corpus/words/vectors.py"],
    "opencc": ["corpus/clean/variant.py", "corpus/vocabulary/learn.py"],
    "pyarrow": ["corpus/"],
    "resiliparse": ["corpus/clean/html.py"],
    "matplotlib": ["engine/metrics/plot.py"],
    "tensorboard": ["engine/metrics/trackers.py"],
    "wandb": ["engine/metrics/trackers.py"],
    "swanlab": ["engine/metrics/trackers.py"],
    "triton": ["decoder/kernels/"],
}
# torch takes seconds to import: the corpus side, which starts many short processes, does without it.
TORCH_FROM = "data"


# Names that DeepSpeed gives to what it hangs on tensors and engines.
DEEPSPEED_ATTRIBUTES = r"ds_\w+|lp_fragment\w*|grad_partitions_\w+|fp16_groups|fp32_partitioned_groups_flat|_hp_mapping"
RETIRED = {
    "sequences_per_step": "global_batch_size",
    "micro_sequences": "micro_batch_size",
    "row_tokens": "sequence_length",
    "context_tokens": "max_position_embeddings",
    "sequence_ranks": "sequence_parallel_size",
    "share_rows": "enable_sequence_parallel",
    "clip_norm": "max_grad_norm",
    "steps_ahead": "prefetch_steps",
    "every_steps": "interval_steps",
    "model_flops_utilisation_fraction": "mfu",
    "seconds_waiting_for_data": "data_seconds",
    "Flight": "PendingSave",
    "Saver": "AsyncCheckpointer",
    "Stretch": "ShardSlice",
    "LiveState": "ZeroState",
    "place_of_rank": "rank_position",
    "Judge": "Detector",
    "Finding": "Anomaly",
    "refuse_update": "skip_update",
    "StallWatch": "Watchdog",
    "Beat": "Heartbeat",
    "left_out": "skipped",
    "KeptLines": "LineWriter",
    "drill": "rehearse",
    "from_first": "broadcast",
    "from_all": "all_gather",
    "quarantine": "damaged shards",
    "initialise": "initialize",
    "tokenise": "tokenize",
    "penalise": "penalize",
    "normalise": "normalize",
    "Trade-off": "what is the case, in a plain sentence",
}


class Import(NamedTuple):
    file: str
    line: int
    module: str


@cache
def parsed(source: str) -> ast.Module:
    """Several rules look at the same files."""
    return ast.parse(source)


def imports_of(path: Path, name: str) -> Iterator[Import]:
    """Every module that a file imports, at the top or inside a function, as absolute dotted names."""
    for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import; imports here are absolute"
            module = node.module or ""
            yield Import(name, node.lineno, module)
            if module in ("megadec", "torch"):  # `from megadec import corpus`, `from torch.utils import tensorboard`
                yield from (Import(name, node.lineno, f"{module}.{alias.name}") for alias in node.names)


def library_imports(root: Path) -> list[Import]:
    folder = root / "megadec"
    return [
        found
        for path in sorted(folder.rglob("*.py"))
        for found in imports_of(path, path.relative_to(folder).as_posix())
    ]


def order_violations(imports: list[Import]) -> list[str]:
    """A package imports itself and packages that stand before it; the scripts' folders are never imported."""
    wrong = []
    for file, line, module in imports:
        parts = module.split(".")
        here = file.split("/")[0]
        if parts[0] in SCRIPTS:
            wrong.append(
                f"megadec/{file}:{line}: imports {module}; launch/, tools/ and tests/ import megadec, not the reverse"
            )
        if here in ORDER and parts[0] == "megadec" and len(parts) > 1 and parts[1] in ORDER[ORDER.index(here) + 1 :]:
            wrong.append(f"megadec/{file}:{line}: {here} imports {module}, which stands after it ({' < '.join(ORDER)})")
    return wrong


def door_violations(imports: list[Import]) -> list[str]:
    wrong = []
    for file, line, module in imports:
        library = module.split(".")[0]
        if "tensorboard" in module:
            library = "tensorboard"
        doors = DOORS.get(library)
        if doors is not None and not file.startswith(tuple(doors)):
            wrong.append(f"megadec/{file}:{line}: imports {module}; its door is {', '.join(doors) or 'launch/'}")
        here = file.split("/")[0]
        if library == "torch" and here in ORDER[: ORDER.index(TORCH_FROM)]:
            wrong.append(f"megadec/{file}:{line}: imports {module}; torch is for {TORCH_FROM} and what stands after it")
    return wrong


def modules_of(root: Path) -> dict[str, Path]:
    """Every module below megadec/ by its dotted name."""
    folder = root / "megadec"
    return {
        ".".join(("megadec", *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }


def room_of(module: str) -> str:
    """A folder inside a package is one room; a file beside such folders stands for itself."""
    return ".".join(module.split(".")[:3])


def circles(root: Path, name_of: Callable[[str], str] = str) -> list[str]:
    """A circle among modules, or among what `name_of` makes of them, by all imports, those under TYPE_CHECKING and in
    functions too."""
    names = modules_of(root)
    edges: dict[str, set[str]] = {name_of(name): set() for name in names}
    for name, path in names.items():
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            targets: set[str] = set()
            if isinstance(node, ast.Import):
                targets = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                targets = (whole & names.keys()) or {node.module}
            edges[name_of(name)] |= {name_of(target) for target in targets & names.keys()} - {name_of(name)}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        *circle, _ = reversed(error.args[1])
        first = circle.index(min(circle))
        return [" -> ".join([*circle[first:], *circle[:first], circle[first]])]
    return []


def crowded(root: Path) -> list[str]:
    """Folders with more Python files than one finds one's way in."""
    counts = Counter(path.parent for path in (root / "megadec").rglob("*.py"))
    return [f"{folder.relative_to(root)}: {count} files" for folder, count in counts.items() if count > MOST_FILES]


def private_attributes(root: Path) -> list[str]:
    """Where something reaches into DeepSpeed's engine outside its door."""
    found = []
    for path in sorted((root / "megadec").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith("megadec/engine/zero/"):
            continue
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.fullmatch(DEEPSPEED_ATTRIBUTES, node.attr):
                found.append(f"{name}:{node.lineno}: .{node.attr} is DeepSpeed's own; its door is engine/zero/")
    return found


def retired_words(root: Path) -> list[str]:
    """Where a name is used that the field has another word for (RETIRED: the word -> the field's)."""
    found = []
    retired = re.compile(rf"\b({'|'.join(RETIRED)})\b")
    for folder in ("megadec", "launch", "tools", "bench", "ds_configs", "tests"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".py", ".yaml", ".md", ".sh") or "results" in path.parts or path.name == THIS:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                for word in retired.findall(line):
                    found.append(f"{path.relative_to(root)}:{number}: {word}; say {RETIRED[word]}")
    return found


def circles_of_rooms(root: Path) -> list[str]:
    return circles(root, room_of)


def order_and_doors(root: Path) -> list[str]:
    imports = library_imports(root)
    return order_violations(imports) + door_violations(imports)


RULES = (order_and_doors, circles, circles_of_rooms, crowded, private_attributes, retired_words)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_each_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(PROJECT) == []


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("corpus/quality/rules.py", "from megadec.engine.loop import train", "corpus imports megadec.engine.loop"),
        ("data/dataset.py", "from megadec import decoder", "data imports megadec.decoder"),
        ("engine/step.py", "import tools.convert", "imports tools.convert"),
        ("engine/step.py", "def f():\n    import deepspeed", "its door is engine/zero/engine.py"),
        ("corpus/quality/rules.py", "import torch", "torch is for data"),
        ("export/read/load.py", "from transformers import AutoConfig", "its door is export/huggingface/export.py"),
        ("export/huggingface/export.py", "import onnxruntime", "its door is export/onnx"),
        ("engine/loop.py", "import ray", "its door is ray/"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path: Path, file: str, line: str, words: str) -> None:
    """The rules above can fail: each breach, made on purpose, is named with its file and line."""
    path = tmp_path / "megadec" / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\n")
    wrong = order_and_doors(tmp_path)
    assert len(wrong) == 1
    assert words in wrong[0]
    assert f"megadec/{file}:" in wrong[0]


def test_each_of_the_other_rules_can_fail(tmp_path: Path) -> None:
    room, other = tmp_path / "megadec" / "engine" / "a", tmp_path / "megadec" / "engine" / "b"
    for folder in (room, other):
        folder.mkdir(parents=True)
    (room / "one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import megadec.engine.b.two\n"
    )
    (other / "two.py").write_text("x = engine.ds_tensor\n")
    (other / "three.py").write_text("import megadec.engine.a.four\nclip_norm = 1\n")
    for number in range(MOST_FILES):
        (room / f"f{number}.py").write_text("")
    (room / "four.py").write_text("")
    assert circles(tmp_path) == []
    (room / "four.py").write_text("import megadec.engine.b.three\n")
    assert circles(tmp_path) == ["megadec.engine.a.four -> megadec.engine.b.three -> megadec.engine.a.four"]
    assert circles_of_rooms(tmp_path) == ["megadec.engine.a -> megadec.engine.b -> megadec.engine.a"]
    assert crowded(tmp_path) == [f"megadec/engine/a: {MOST_FILES + 2} files"]
    assert private_attributes(tmp_path) == [
        "megadec/engine/b/two.py:1: .ds_tensor is DeepSpeed's own; its door is engine/zero/"
    ]
    assert retired_words(tmp_path) == ["megadec/engine/b/three.py:2: clip_norm; say max_grad_norm"]


def test_every_python_file_opens_with_a_docstring() -> None:
    files = [path for folder in ("megadec", *SCRIPTS) for path in (PROJECT / folder).rglob("*.py")]
    assert [
        str(p) for p in files if p.stat().st_size and not ast.get_docstring(parsed(p.read_text(encoding="utf-8")))
    ] == []
