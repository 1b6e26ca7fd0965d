"""The commands of docs/en/quick-start.md as they stand there, with fewer steps, on the sample corpus; then Python."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest

import megadec
from megadec.common.errors import ConfigError
from megadec.common.processes import free_port
from tests.support import PROJECT
from tests.support.processes import environment

PAGE = (PROJECT / "docs" / "en" / "quick-start.md").read_text(encoding="utf-8")
SHORTER = {
    "launch/pretrain.py": "--train.steps 6 --schedule.warmup_steps 2 --evaluate.interval_steps 3",
    "launch/finetune.py": "--epochs 0.1",
}
TITLES = PROJECT / "samples" / "thucnews" / "titles"


def commands(page: str) -> list[list[str]]:
    """The indented command lines of a page, in order, those over several lines joined."""
    joined = re.sub(r"\\\n\s*", " ", page)
    return [shlex.split(line) for line in re.findall(r"^    ((?:python|deepspeed) .*)$", joined, re.MULTILINE)]


def run_here(words: list[str]) -> None:
    """Run a command in the current folder: a Python script inside this process, which has its imports already."""
    if words[0] == "deepspeed":
        script = words[words.index("--num_accelerators") + 2]
        launched = [words[0], "--master_port", str(free_port()), *words[1:], *SHORTER[script].split()]
        done = subprocess.run(launched, env=environment(), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return
    with mock.patch("sys.argv", words[1:]), pytest.raises(SystemExit) as ended:
        runpy.run_path(words[1], run_name="__main__")
    assert ended.value.code in (0, None), words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout with a user's texts in it, after every command of the page but the services."""
    folder = tmp_path_factory.mktemp("quick-start")
    for name in ("launch", "tools", "ds_configs"):
        (folder / name).symlink_to(PROJECT / name)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "train.py").symlink_to(PROJECT / "tokenizer" / "train.py")
    shutil.copytree(TITLES, folder / "my" / "titles")
    texts = [
        path.read_text(encoding="utf-8") for path in sorted((PROJECT / "samples" / "thucnews").glob("*/[0-9]*.txt"))
    ]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "my" / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    [run_file] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "my" / "run.yaml").write_text(run_file, encoding="utf-8")
    before_gpu, services = PAGE.split("## On one GPU")[0], "launch/serve.py"
    here = Path.cwd()
    os.chdir(folder)
    try:
        for words in commands(before_gpu):
            if services not in words:
                run_here(words)
    finally:
        os.chdir(here)
    return folder


def test_every_command_of_the_quick_start_leaves_what_it_says(folder: Path) -> None:
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    for made in ("documents/mine.parquet", "shards/mine/index.json", "exports/mine-hf/config.json", "exports/labels"):
        assert (folder / made).exists(), made
    assert len(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()) == 12, "twelve lines are promised"


def test_a_loaded_model_generates_streams_and_has_the_loss_of_its_text(folder: Path) -> None:
    model = megadec.load(folder / "exports" / "mine-hf")
    text = model.generate("今天", max_new_tokens=8, temperature=0)
    assert "".join(model.stream("今天", max_new_tokens=8, temperature=0)) == text
    assert 0 < model.loss("今天的天气很好。") < 20
    with pytest.raises(ConfigError, match="classify needs a classifier"):
        model.classify(["今天"])
    with pytest.raises(ConfigError, match="max_tokens"):
        model.generate("今天", max_tokens=8)


def test_a_loaded_classifier_labels_texts(folder: Path) -> None:
    classifier = megadec.load(folder / "exports" / "labels")
    [found] = classifier.classify(["主场球迷欢呼 北山队夺得联赛冠军"])
    assert list(found) == classifier.labels == (TITLES / "class.txt").read_text(encoding="utf-8").split()
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match="needs a language model"):
        classifier.generate("今天")
