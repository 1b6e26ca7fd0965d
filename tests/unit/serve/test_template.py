"""A chat becomes the ids that its template means, and nothing in a message can become more than text."""

import json
import shutil
from pathlib import Path

import pytest

from megadec.common.errors import ExportError, ModelFolderError
from megadec.common.tokenizer import Tokenizer
from megadec.serve.bodies.generate import Message
from megadec.serve.limits import RequestError
from megadec.serve.template import OwnTemplate, PlainTemplate, read_template

TURNS = [("system", "简短。"), ("user", "你好"), ("assistant", "你好！"), ("user", "再见")]
CHAT = [Message(role=role, content=content) for role, content in TURNS]
OWN = (
    "{{ bos_token }}{% for message in messages %}\n"
    "[{{ message['role'] }}] {% generation %}{{ message['content'] | trim }}{% endgeneration %}{{ eos_token }}\n"
    "{% endfor %}\n{% if add_generation_prompt %}[assistant] {% endif %}"
)


def test_the_plain_template_is_a_line_for_each_role(tokenizer: Tokenizer) -> None:
    ids = PlainTemplate().ids(CHAT, tokenizer)
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.decode(ids[1:]) == "系统：简短。\n用户：你好\n助手：你好！\n用户：再见\n助手："
    assert "\n用户：" in PlainTemplate().stops


def test_a_template_of_the_folder_is_found_in_each_of_its_places_and_without_one_it_is_plain(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = tmp_path / "tokenizer_config.json"
    shutil.copyfile(tokenizer.path, tmp_path / "tokenizer.model")
    assert read_template(Tokenizer.load(tmp_path)).name == "plain"
    found = []
    for file, text in (
        (config, json.dumps({"chat_template": OWN})),
        (config, json.dumps({"chat_template": [{"name": "default", "template": OWN}]})),
        (config, "{}"),
        (tmp_path / "chat_template.jinja", OWN),
    ):
        file.write_text(text)
        found.append(read_template(Tokenizer.load(tmp_path)))
    assert [template.name for template in found] == ["own", "own", "plain", "own"]
    assert found[0].ids(CHAT, tokenizer) == found[1].ids(CHAT, tokenizer) == found[3].ids(CHAT, tokenizer)


def test_the_own_template_renders_as_in_transformers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{"role": role, "content": content} for role, content in TURNS]
    compiled = utils._compile_jinja_template(OWN)
    theirs = compiled.render(messages=messages, bos_token="", eos_token="", add_generation_prompt=True)
    ids = OwnTemplate(OWN, tmp_path).ids(CHAT, tokenizer)
    assert tokenizer.decode([i for i in ids if i not in (tokenizer.bos_id, tokenizer.eos_id)]) == theirs


def test_begin_and_end_of_text_are_ids_where_the_template_says_so_and_text_in_a_message(tokenizer: Tokenizer) -> None:
    ids = OwnTemplate(OWN, Path("t")).ids([Message(role="user", content="说<s>和</s>")], tokenizer)
    assert (ids.count(tokenizer.bos_id), ids.count(tokenizer.eos_id)) == (1, 1)
    assert ids[0] == tokenizer.bos_id
    assert "说<s>和</s>" in tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),  # it reaches nothing but its messages
    ],
)
def test_a_template_can_refuse_messages(tokenizer: Tokenizer, source: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        OwnTemplate(source, Path("t")).ids(CHAT, tokenizer)


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LONG = "{% for i in range(9999) %}{{ messages[0].content * 999 }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOP, "does not end within 1 second"),
        ("{{ (9 + messages | length) ** 999999999 }}", "does not end within 1 second"),
        ("{{ messages[0].content * 9999999999 }}", "more than 1073741824 bytes of memory"),
        (LONG, "writes more than 4194304 characters"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages | nothing }}", "No filter named 'nothing'"),
    ],
)
def test_a_template_that_does_not_end_or_breaks_is_an_error_and_the_next_text_is_rendered(
    tokenizer: Tokenizer, source: str, words: str
) -> None:
    template = OwnTemplate("{% if messages[0].content == '好' %}好{% else %}" + source + "{% endif %}", Path("t"))
    with pytest.raises(RequestError, match=words) as refused:
        template.ids(CHAT, tokenizer)
    assert (refused.value.status, refused.value.parameter) == (400, "messages")
    assert template.ids([Message(role="user", content="好")], tokenizer) == tokenizer.encode("好")


@pytest.mark.parametrize("source", [LOOP, "{% block a %}{% endblock %}{% block a %}{% endblock %}"])
def test_a_template_that_cannot_be_rendered_at_all_is_refused_before_anything_is_served(
    tokenizer: Tokenizer, source: str
) -> None:
    OwnTemplate("{{ raise_exception('there is no system message') }}", Path("t")).check(tokenizer)
    with pytest.raises(ModelFolderError, match=r"folder: .*the model's chat template (does not end|is none)"):
        OwnTemplate(source, Path("folder")).check(tokenizer)


def test_a_template_that_is_none_is_refused_when_it_is_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    shutil.copyfile(tokenizer.path, tmp_path / "tokenizer.model")
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ExportError, match=r"chat_template is not a Jinja template"):
        read_template(Tokenizer.load(tmp_path))
