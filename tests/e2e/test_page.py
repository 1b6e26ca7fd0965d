"""The page for people: its own script, against a server, in node with the few parts of a browser that it touches."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megadec.export.read.megadec import to_megadec
from tests.support import PROJECT
from tests.support.services import PATIENCE_SECONDS, reciting_source, serving
from tests.support.sources import random_classifier

PAGE = PROJECT / "megadec" / "serve" / "page.html"


def codes() -> set[str]:
    """The codes of all errors that the service makes."""
    found = set()
    for file in PAGE.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("RequestError", "self._refuse"):
                place = 2 if ast.unparse(node.func) == "RequestError" else 1
                named = [one.value for one in node.keywords if one.arg == "code"]
                found |= {one.value for one in [*node.args[place : place + 1], *named] if isinstance(one, ast.Constant)}
    return {str(code) for code in found if code is not None}


def test_each_error_of_the_service_is_told_in_the_pages_language() -> None:
    table = re.search(r"const SENTENCES = \{([^}]*)\}", PAGE.read_text(encoding="utf-8"))
    assert table is not None
    sentences = dict(re.findall(r'^  (\w+): "(.*)",$', table[1], re.MULTILINE))
    assert len(codes()) > 10
    assert {*codes(), "invalid_value", "template_failed"} <= sentences.keys()
    assert all(re.search("[\u4e00-\u9fff]", sentence) for sentence in sentences.values())


@pytest.fixture(scope="module")
def see(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_path: Path) -> Iterator[Callable[..., list[Any]]]:
    """Takes steps on the page, and gives what was sent and is seen after each."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    pytest.importorskip("starlette")
    folder = tmp_path_factory.mktemp("page")
    to_megadec(reciting_source(tiny_tokenizer_path), folder / "tiny")
    to_megadec(random_classifier(tiny_tokenizer_path, {"sequence_length": 20}), folder / "labels")
    options = ["--classifier", str(folder / "labels"), "--limits.max_position_embeddings", "200"]
    with serving(folder / "tiny", folder / "log", *options) as server:

        def steps(*wanted: dict[str, Any]) -> list[Any]:
            command = [
                "node",
                str(PROJECT / "tests" / "support" / "page.mjs"),
                str(PAGE),
                f"http://127.0.0.1:{server.port}",
            ]
            ended = subprocess.run(
                command, input=json.dumps(wanted), capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
            )
            assert ended.returncode == 0, ended.stderr
            return [json.loads(line) for line in ended.stdout.splitlines()]

        yield steps


def test_an_empty_field_of_tokens_asks_for_the_usual_number(see: Callable[..., list[Any]]) -> None:
    given = {"": 128, "0": 128, "x": 128, "7.9": 7}
    found = see(*({"fill": {"tokens": one, "prompt": "。"}, "submit": "talk-form"} for one in given))
    for seen, (one, wanted) in zip(found, given.items(), strict=True):
        assert ([body["max_tokens"] for body in seen["sent"]], seen["trouble"]) == ([wanted], ""), one
        assert int(seen["tokens"]) == wanted, "the field says so too"


def test_a_full_context_is_no_dead_end(see: Callable[..., list[Any]]) -> None:
    said = {"fill": {"prompt": "。" * 60, "tokens": "40"}, "submit": "talk-form"}
    *_, last = see({"click": "mode-chat"}, said, said, said, said)
    assert last["trouble"] == ""
    assert "较早的对话放不下，已略去 earlier turns left out" in last["log"]
    assert len(last["sent"]) > 1, "it was asked again"
    [seen] = see({"fill": {"prompt": "。" * 150, "tokens": "128"}, "submit": "talk-form"})
    assert seen["trouble"] == ""
    assert "上下文放不下，长度已减少" in seen["log"]
    [seen] = see({"fill": {"prompt": "。" * 250}, "submit": "talk-form"})
    assert seen["trouble"].startswith("文本太长，放不进模型的上下文。请缩短它，或者清空后重新开始。a prompt of ")
    assert seen["log"] == ""


def test_a_text_that_was_cut_and_no_text_at_all_are_told(see: Callable[..., list[Any]]) -> None:
    cut, none = see(
        {"fill": {"texts": "短\n" + "长" * 90}, "submit": "classify-form"},
        {"fill": {"texts": " \n"}, "submit": "classify-form"},
    )
    assert cut["labels"].count("文本太长，只看了一部分") == 1
    assert none["trouble"].startswith("没有文本。")


def test_a_long_label_leaves_room_for_its_bar() -> None:
    columns = re.search(r"\.bars \{[^}]*grid-template-columns: ([^;]*);[^}]*overflow-wrap: anywhere", PAGE.read_text())
    assert columns is not None, "a label is broken where it does not fit"
    assert columns[1] == "fit-content(60%) minmax(3rem, 1fr) max-content"
