"""What stands beside a vocabulary in a model's folder: added tokens, special tokens, chat templates, end tokens.

In come the small files that transformers reads too; out goes one `Companions`. A folder says the same thing in several
places (`tokenizer_config.json`, `tokenizer.json`, `added_tokens.json`, `special_tokens_map.json`): they are read
together, and must agree. What megadec cannot do as transformers does is refused by its key, never left out.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megadec.common.errors import TokenizerError
from megadec.common.files import read_json, sha256_of

MODEL_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"
MODEL_CONFIG_FILE = "config.json"
# What is copied byte for byte into everything that is made of a model; GENERATION_FILE is written with all end tokens.
COPIED_FILES = (MODEL_FILE, JSON_FILE, CONFIG_FILE, SPECIAL_FILE, ADDED_FILE, TEMPLATE_FILE)

EXTRA_KEYS = ("additional_special_tokens", "extra_special_tokens")
# How a token would be matched that is not matched letter by letter.
MATCHING_KEYS = ("lstrip", "rstrip", "single_word")
# The tokens of every sentencepiece model of ours; a folder that names no others is known by its vocabulary alone.
USUAL_TOKENS = ("<unk>", "<s>", "</s>")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A text that is one id. special: only a template can write it; otherwise it is matched in every text."""

    id: int
    text: str
    special: bool


@dataclass(frozen=True)
class Companions:
    """What a folder says beside its vocabulary.

    content: of tokenizer.json, None without one. added: in the order of their ids. names: such as `eos_token` -> text,
    as a chat template sees them. extra_special: special tokens without a name. adds_bos: whether `<s>` is put in front
    of a prompt, None where nothing says so. templates: chat templates by name, `default` being the usual one.
    generation: of generation_config.json. bos_ids, end_ids: what it and config.json say of `bos_token_id`,
    `eos_token_id`.
    """

    content: Mapping[str, Any] | None
    config: Mapping[str, Any]
    added: tuple[AddedToken, ...]
    names: Mapping[str, str]
    extra_special: tuple[str, ...]
    adds_bos: bool | None
    templates: Mapping[str, str]
    generation: Mapping[str, Any]
    bos_ids: tuple[int, ...]
    end_ids: tuple[int, ...]

    @cached_property
    def identity(self) -> list[Any]:
        """What changes the ids of a text or of a document's ends; empty where the vocabulary says it all."""
        tokens = [[token.id, token.text, token.special] for token in self.added if token.text not in USUAL_TOKENS]
        named = {key: self.names.get(key) for key in ("bos_token", "eos_token")}
        others = {key: text for key, text in named.items() if text not in (None, *USUAL_TOKENS)}
        extra = [text for text in self.extra_special if text not in USUAL_TOKENS]
        return [tokens, others, extra] if tokens or others or extra else []


def vocabulary_file(path: Path) -> Path:
    """The vocabulary of a folder: tokenizer.model, or tokenizer.json where there is no other; a file is itself."""
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).is_file() and (path / JSON_FILE).is_file():
        return path / JSON_FILE
    return path / MODEL_FILE


def content_sha256(file: Path, companions: Companions | None = None) -> str:
    """What a tokenizer is known by: the SHA-256 of tokenizer.model, or of all that gives ids where there is more.

    Spaces and order of a JSON file do not count. Raises TokenizerError.
    """
    companions = companions or read_companions(file)
    if file.suffix == ".json":
        content = companions.content or {}
        parts = {key: content.get(key) for key in ("model", "normalizer", "pre_tokenizer")}
        said: list[Any] = [parts, companions.identity]
    elif not companions.identity:
        return sha256_of(file)
    else:
        said = [sha256_of(file), companions.identity]
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_companions(file: Path) -> Companions:
    """What stands beside this vocabulary. Raises TokenizerError naming the file and key that cannot be carried."""
    folder = file.parent
    content = _mapping(folder / JSON_FILE) if (folder / JSON_FILE).is_file() else None
    config = _mapping(folder / CONFIG_FILE)
    # As transformers has it: of the older file only where tokenizer_config.json has no added_tokens_decoder, and of its
    # tokens without a name only those under the newer key.
    older = {} if "added_tokens_decoder" in config else _mapping(folder / SPECIAL_FILE)
    named = {**config, **older, "additional_special_tokens": config.get("additional_special_tokens")}
    if named.get("add_eos_token"):
        raise TokenizerError(f"{folder / CONFIG_FILE}: add_eos_token=true would end each prompt; megadec cannot do so")
    names = _names({key: value for key, value in named.items() if key.endswith("_token")}, folder)
    listed = {key: named[key] for key in EXTRA_KEYS if isinstance(named.get(key), list)}
    texts = (_text(item, f"{folder / CONFIG_FILE}: {key}") for key, items in listed.items() for item in items)
    extra = tuple(dict.fromkeys(text for text in texts if text is not None))
    # The keys of a mapping `extra_special_tokens` are names; its values are the tokens.
    for key in EXTRA_KEYS:
        if isinstance(named.get(key), Mapping):
            names |= (more := _names(named[key], folder))
            extra = tuple(more.values())
    generation, model = _mapping(folder / GENERATION_FILE), _mapping(folder / MODEL_CONFIG_FILE)
    stated = ((generation, folder / GENERATION_FILE), (model, folder / MODEL_CONFIG_FILE))
    bos_ids, end_ids = (
        tuple(one for content, file in stated for one in _ids(content, key, file))
        for key in ("bos_token_id", "eos_token_id")
    )
    return Companions(
        content=content,
        config=config,
        added=_added(folder, config, content, {*names.values(), *extra}),
        names=names,
        extra_special=extra,
        adds_bos=config["add_bos_token"] if isinstance(config.get("add_bos_token"), bool) else _adds_bos(content),
        templates=_templates(folder, config),
        generation=generation,
        bos_ids=bos_ids,
        end_ids=end_ids,
    )


def _mapping(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    found = read_json(file, TokenizerError) if file.is_file() else {}
    if not isinstance(found, dict):
        raise TokenizerError(f"{file} holds {type(found).__name__}; an object was expected")
    return found


def _names(named: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The named tokens, without switches such as `add_bos_token` and names that are left open."""
    texts = {
        key: _text(value, f"{folder / CONFIG_FILE}: {key}")
        for key, value in named.items()
        if not isinstance(value, bool)
    }
    return {key: text for key, text in texts.items() if text is not None}


def _text(value: Any, where: str) -> str | None:
    """A token as a text, or as the object that transformers writes of one; None for none. Raises TokenizerError."""
    text = value.get("content") if isinstance(value, Mapping) else value
    if text is not None and not (isinstance(text, str) and is_text(text)):
        raise TokenizerError(f"{where}={str(value)[:80]!r} is not the text of a token")
    return text or None


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8, as half of a surrogate pair cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _ids(config: Mapping[str, Any], key: str, file: Path) -> tuple[int, ...]:
    value = config.get(key)
    found = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(one) is int and one >= 0 for one in found):
        raise TokenizerError(f"{file}: {key}={value!r} is neither an id nor a list of ids")
    return tuple(found)


def _added(
    folder: Path, config: Mapping[str, Any], content: Mapping[str, Any] | None, special: set[str]
) -> tuple[AddedToken, ...]:
    """The added tokens of all files. Raises TokenizerError where two say different things."""
    found: dict[str, AddedToken] = {}
    owner: dict[int, str] = {}
    for place, key, token in _stated(folder, config, content, special):
        known = found.setdefault(token.text, token)
        # Which tokens are special is what tokenizer_config.json says, the first one read.
        if known.id != token.id or owner.setdefault(token.id, token.text) != token.text:
            other = known if known.id != token.id else found[owner[token.id]]
            raise TokenizerError(f"{place}: {key} has {token.text!r} at {token.id}; {other.text!r} is at {other.id}")
    return tuple(sorted(found.values(), key=lambda token: token.id))


def _stated(
    folder: Path, config: Mapping[str, Any], content: Mapping[str, Any] | None, special: set[str]
) -> Iterator[tuple[Path, str, AddedToken]]:
    """(file, key, token) of each place that states an added token."""
    decoder = config.get("added_tokens_decoder") or {}
    tokens = (content or {}).get("added_tokens") or []
    for name, key, found, kind in (
        (CONFIG_FILE, "added_tokens_decoder", decoder, dict), (JSON_FILE, "added_tokens", tokens, list)
    ):  # fmt: skip
        if not isinstance(found, kind):
            raise TokenizerError(f"{folder / name}: {key} is a {type(found).__name__}, not a {kind.__name__} of tokens")
    listed = [
        *((CONFIG_FILE, "added_tokens_decoder", token, number) for number, token in decoder.items()),
        *((JSON_FILE, "added_tokens", token, None) for token in tokens),
        *((ADDED_FILE, text, {"content": text}, number) for text, number in _mapping(folder / ADDED_FILE).items()),
    ]
    for name, key, token, stated in listed:
        text = _text(token, f"{folder / name}: {key}")
        number = str(token.get("id") if stated is None and isinstance(token, Mapping) else stated)
        if not isinstance(token, Mapping) or text is None or not re.fullmatch("[0-9]{1,9}", number):
            raise TokenizerError(f"{folder / name}: {key} has {token!r} at {number}; a token has an id and a content")
        if wrong := [how for how in MATCHING_KEYS if token.get(how)]:
            raise TokenizerError(
                f"{folder / name}: added token {text!r} has {wrong[0]}=true; megadec matches added tokens as they stand"
            )
        yield folder / name, key, AddedToken(int(number), text, bool(token.get("special")) or text in special)


def _adds_bos(content: Mapping[str, Any] | None) -> bool | None:
    """Whether tokenizer.json's template for one text begins with a special token; None without such a template."""
    if content is None or content.get("post_processor") is None:
        return None if content is None else False
    for one in steps_of(content["post_processor"], "processors"):
        if single := one.get("single"):
            return "SpecialToken" in single[0]
    return False


def steps_of(step: Any, key: str) -> list[Mapping[str, Any]]:
    """A step of tokenizer.json, or the steps that its `key` lists."""
    listed = step.get(key, [step]) if isinstance(step, Mapping) else []
    return [one for one in listed if isinstance(one, Mapping)]


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; the file wins over the key, as in transformers."""
    if (folder / "additional_chat_templates").is_dir():
        raise TokenizerError(
            f"{folder}/additional_chat_templates: megadec carries the templates of {CONFIG_FILE} and {TEMPLATE_FILE}; "
            f"write them there as chat_template: [{{name, template}}]"
        )
    stated = config.get("chat_template")
    if isinstance(stated, str):
        stated = [{"name": "default", "template": stated}]
    found = {}
    if not isinstance(stated, list | None):
        stated = [stated]
    for item in stated or ():
        name, template = (item.get(key) if isinstance(item, Mapping) else None for key in ("name", "template"))
        if not isinstance(name, str) or not isinstance(template, str) or not is_text(name + template):
            raise TokenizerError(
                f"{folder / CONFIG_FILE}: chat_template is neither a text nor a list of name, template"
            )
        found[name] = template
    if (folder / TEMPLATE_FILE).is_file():
        try:
            found["default"] = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{folder / TEMPLATE_FILE} is not UTF-8: {error}") from error
    return found
