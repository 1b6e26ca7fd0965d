"""What tests share: a tiny tokenizer, invented documents, and a data set made of them. Nothing here is copied text."""

import os
import random
from pathlib import Path

import hypothesis
import pytest

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.corpus.shards import write_shards
from tests.support.tokenizers import train_tokenizer

# No time limit an example: other work may hold the machine. In CI the examples are the same each time, so that a change
# is judged by itself; on a developer's machine they are drawn anew.
hypothesis.settings.register_profile("megadec", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("megadec")
# Test processes and ranks share the cores; as `make test` has it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whether there is a GPU is asked without starting CUDA, which a process that forks ranks must not.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# Compilers of its own for each test that compiles would cost more to start than they save.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# Where processes share the tests (-n), all wait at the end for a slow file that began last: these begin first.
SLOW_FILES = (
    "e2e/test_line.py",
    "dist/test_ray.py",
    "dist/test_rehearsal.py",
    "dist/test_interrupt.py",
    "dist/test_execution.py",
    "e2e/test_service.py",
    "e2e/test_quick_start.py",
    "dist/test_resume_elsewhere.py",
    "dist/test_finetune.py",
)


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would begin with the files that hold most tests, which are the fast ones.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        return SLOW_FILES.index(name) if name in SLOW_FILES else len(SLOW_FILES), not name.startswith("dist/")

    items.sort(key=place)


_WHO = ("小林", "老周", "这位医生", "村里的木匠", "图书馆员", "船长", "年轻的教师", "那只猫")
_WHEN = ("清晨", "去年冬天", "雨停之后", "每个星期三", "一九八四年", "黄昏时分")
_WHERE = ("在河边", "在旧车站", "在山上的小屋里", "在城南的市场", "在实验室", "在码头")
_WHAT = (
    "种下了一棵柿子树",
    "修好了三台收音机",
    "写完一封很长的信",
    "发现了一张旧地图",
    "煮了一锅面汤",
    "数了二十七颗星星",
)
_THEN = ("大家都很高兴", "没有人知道原因", "天气慢慢变冷了", "后来这件事被写进了县志", "第二天又重新开始")
_END = "。。。！？"
_SOURCES = ("wiki", "news", "comments")


def _sentence(chance: random.Random) -> str:
    parts = (chance.choice(_WHEN), chance.choice(_WHO), chance.choice(_WHERE), chance.choice(_WHAT))
    return f"{''.join(parts)}，{chance.choice(_THEN)}{chance.choice(_END)}"


def _document(number: int) -> Document:
    chance = random.Random(number)
    source = _SOURCES[number % len(_SOURCES)]
    sentences = chance.choice((1, 3, 12, 40, 80, 180))
    lines = [_sentence(chance) for _ in range(sentences)]
    text = "".join(line + ("\n" if chance.random() < 0.1 else "") for line in lines).strip()
    title = "" if source == "comments" else f"{chance.choice(_WHO)}的第{number}天"
    return Document(id=f"{source}-{number}", source=source, text=text, title=title, licence=f"licence of {source}")


@pytest.fixture(scope="session")
def tiny_documents() -> list[Document]:
    """200 invented documents of very different lengths from three sources."""
    return [_document(number) for number in range(200)]


@pytest.fixture(scope="session")
def tiny_tokenizer_path(tmp_path_factory: pytest.TempPathFactory, tiny_documents: list[Document]) -> Path:
    """A tokenizer of 600 pieces."""
    lines = (line for document in tiny_documents for line in document.text.split("\n"))
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"), lines, 600)


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer_path: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_path)


@pytest.fixture(scope="session")
def tiny_shards(
    tmp_path_factory: pytest.TempPathFactory, tiny_documents: list[Document], tiny_tokenizer_path: Path
) -> Path:
    """A data set of `tiny_documents`: several tars of several blocks each. Treat it as read-only."""
    folder = tmp_path_factory.mktemp("shards") / "tiny"
    write_shards(tiny_documents, Tokenizer.load(tiny_tokenizer_path), folder, block_tokens=4096, shard_bytes=2**15)
    return folder


@pytest.fixture
def plan_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the plans of `best_fit`."""
    monkeypatch.setattr("megadec.data.windows.default_cache_folder", lambda: tmp_path / "plans")
    return tmp_path / "plans"
