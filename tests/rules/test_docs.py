"""What the documentation names exists, the options page is what the dataclasses give, every run file loads."""

import contextlib
import io
import re
import runpy
from dataclasses import fields
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megadec.common.config import from_yaml
from megadec.decoder.shape import DecoderShape
from megadec.decoder.textbook.rnn import RnnShape
from megadec.decoder.textbook.seq2seq import Seq2SeqShape
from megadec.engine.runs.common import CommonRun
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.seq2seq import PairsRun
from megadec.engine.zero.settings import read_settings
from megadec.finetune.task import FineTuneRun
from tests.support import PROJECT

RUNS: dict[str, type[CommonRun]] = {
    "launch/pretrain.py": PretrainRun,
    "launch/finetune.py": FineTuneRun,
    "launch/seq2seq.py": PairsRun,
}
PAGES = sorted(str(page.relative_to(PROJECT)) for one in ("en", "zh") for page in (PROJECT / "docs" / one).glob("*.md"))
DOCUMENTS = [
    "README.md",
    "README.zh-CN.md",
    "launch/demo.sh",
    "ds_configs/README.md",
    "tokenizer/zh_32k/README.md",
    *PAGES,
]
PROGRAMS = "(?:python|deepspeed|torchrun)"
LAUNCHERS = {"deepspeed": "deepspeed.launcher.runner", "torchrun": "torch.distributed.run"}
# What takes another command's options too, and says so in its help instead of listing them.
OPTIONS_FROM = {"tools/plan.py": "launch/pretrain.py", "tools/mix.py": "launch/pretrain.py"}
# Sections of a run file: a page that names `train.steps` names an option.
SECTIONS = "train|data|model|optimizer|schedule|evaluate|checkpoint|metrics|early_stopping|guard|loss|lora"
FILES = (".py", ".jsonl", ".safetensors", ".gguf", ".onnx")  # names such as `metrics.jsonl` look like keys
# Mappings whose entries are options too, and which entries there are; None: any.
ENTRIES: dict[str, set[str] | None] = {
    "model.shape": {field.name for shape in (DecoderShape, Seq2SeqShape, RnnShape) for field in fields(shape)},
    "loss.weights": None,
}
BUILDER: dict[str, Any] = runpy.run_path(str(PROJECT / "docs" / "build_options.py"))


@pytest.mark.parametrize("path", sorted((PROJECT / "launch" / "runs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_run_file_is_a_run_of_the_command_that_its_comment_gives(path: Path) -> None:
    [script] = {script for script in RUNS if script in path.read_text(encoding="utf-8")}
    assert from_yaml(RUNS[script], path).name


@pytest.mark.parametrize("path", sorted((PROJECT / "ds_configs").glob("*.json")), ids=lambda path: path.name)
def test_every_deepspeed_file_is_one(path: Path) -> None:
    assert "zero_optimization" in read_settings(path)


def read(name: str) -> str:
    """A document's text, its commands joined over line ends."""
    return re.sub(r"\\\n\s*", " ", (PROJECT / name).read_text(encoding="utf-8"))


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """(document, script or launcher, its options) for each command in the documents, on a line of its own or between
    backticks; what follows ` -- ` is a command of its own."""
    found = []
    for name in DOCUMENTS:
        text = read(name)
        lines = [line for line in text.splitlines() if re.match(rf"\s*(?:\$ |exec )?{PROGRAMS}\s", line)]
        for line in [*lines, *re.findall(rf"`({PROGRAMS}\s[^`]+)`", text)]:
            for command in line.split(" #")[0].replace("`", "").split(" -- "):
                match = re.search(r"((?:tools|launch|tokenizer)/\w+\.py)(.*)", command, re.DOTALL)
                if match:
                    found.append((name, match[1], options_in(match[2])))
                    launcher = re.search(r"deepspeed |torchrun ", command[: match.start()])
                    if launcher:
                        found.append((name, launcher[0].strip(), options_in(command[launcher.end() : match.start()])))
    return list(dict.fromkeys(found))


def options_in(words: str) -> tuple[str, ...]:
    """Every `--option`, without its value."""
    return tuple(re.findall(r"(?<!\S)--[\w.-]*\w", words))


@cache
def help_of(script: str) -> str:
    """What `python SCRIPT --help` prints, or a launcher's help; in this process, as imports take most of its time."""
    printed = io.StringIO()
    status: str | int = 0
    with mock.patch("sys.argv", [script, "--help"]), contextlib.redirect_stdout(printed):
        try:
            if script in LAUNCHERS:
                runpy.run_module(LAUNCHERS[script])["main"]()
            else:
                runpy.run_path(str(PROJECT / script), run_name="__main__")
        except SystemExit as ended:
            status = ended.code or 0
    assert status == 0, script
    assert "--help" in printed.getvalue(), script
    return printed.getvalue()


@cache
def options_of(script: str) -> frozenset[str]:
    """The options that a script knows, with underscores; an entry of a mapping is not among them."""
    known = re.findall(r"(?<![\w-])--([\w.-]*\w)", help_of(script))
    others = options_of(OPTIONS_FROM[script]) if script in OPTIONS_FROM else ()
    return frozenset([*(name.replace("-", "_") for name in known), *others])


def knows(script: str, option: str) -> bool:
    """Whether a script has `--option`, or a mapping that may have this entry."""
    name = option.removeprefix("--")
    if any(known.startswith(f"{name}.") for known in options_of(script)):
        return True  # a section, such as model.execution.recompute
    mapping, _, entry = name.rpartition(".")
    if mapping in ENTRIES and mapping in options_of(script):
        return ENTRIES[mapping] is None or entry in ENTRIES[mapping]
    return name.replace("-", "_") in options_of(script)


def test_the_readme_names_commands() -> None:
    assert len(commands()) > 60


@pytest.mark.parametrize(("document", "script", "options"), commands())
def test_every_command_in_the_documents_exists_with_its_options(
    document: str, script: str, options: tuple[str, ...]
) -> None:
    assert script in LAUNCHERS or (PROJECT / script).is_file(), f"{document} names {script}"
    for option in options:
        assert knows(script, option), f"{document}: {script} has no option {option}"


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("launch/seq2seq.py", "--model.shape.cel"),
        ("launch/finetune.py", "--loss.class_weight"),
        ("launch/pretrain.py", "--model.execution.recompute.modes"),
        ("tools/evaluate.py", "--dat"),
        ("deepspeed", "--hostfil"),
        ("torchrun", "--nnode"),
    ],
)
def test_an_option_that_a_command_does_not_have_is_found(script: str, option: str) -> None:
    assert not knows(script, option)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_and_key_that_a_page_names_belongs_to_a_command(page: str) -> None:
    scripts = [*{script for _, script, _ in commands()}, "torchrun"]
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)):
        keys = [f"--{key}" for key in re.findall(rf"^(?:{SECTIONS})(?:\.\w+)+", span) if not key.endswith(FILES)]
        for option in [
            *keys,
            *(options_in(span) if span.startswith("--") and not span.startswith("--section.") else ()),
        ]:
            assert any(knows(script, option) for script in scripts), f"{page}: nothing has the option {option}"


def test_both_languages_have_the_same_pages_with_the_same_headings_and_commands() -> None:
    english, chinese = ([page for page in PAGES if f"docs/{one}/" in page] for one in ("en", "zh"))
    assert [page.replace("docs/en/", "docs/zh/") for page in english] == chinese != []
    for page, other in zip(english, chinese, strict=True):
        assert outline(page) == outline(other), page


def outline(page: str) -> dict[str, list[Any]]:
    """The levels of a page's headings, and its commands without comments. A diagram is in its page's language."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        "levels": [len(level) for level in re.findall(r"^(#+) ", prose, re.MULTILINE)],
        "blocks": [re.sub(r"\s+# .*", "", block) for kind, block in blocks if kind != "mermaid"],
        "indented": [line.partition("# ")[0].rstrip() for line in re.findall(r"^    (.*)$", prose, re.MULTILINE)],
    }


def test_the_options_pages_are_what_the_dataclasses_give() -> None:
    for path, text in BUILDER["pages"]():
        assert path.read_text(encoding="utf-8") == text, f"{path} is old: run python docs/build_options.py"


@pytest.mark.parametrize(("command", "kind"), BUILDER["COMMANDS"], ids=lambda value: str(value))
def test_every_option_says_what_it_is(command: str, kind: type) -> None:
    texts = {option.name: option.help for option in BUILDER["options_of"](kind)}
    silent = [name for name, text in texts.items() if not text.endswith(".") or text.startswith("see ")]
    assert not silent, f"{command}: the docstring of the dataclass has no sentence for {', '.join(silent)}"


def test_no_readme_is_longer_than_130_lines() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        assert len((PROJECT / name).read_text(encoding="utf-8").splitlines()) <= 130, name


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    skipped = pytestconfig.getini("norecursedirs")
    folders = {path.parent.name for path in (PROJECT / "tests").rglob("test_*.py")}
    assert "dist" in folders
    assert not [name for name in folders if any(fnmatch(name, pattern) for pattern in skipped)]
