"""Configuration: frozen dataclasses in, a checked instance out; defaults < --config FILE.yaml < --section.key VALUE.

jsonargparse reads the files and checks the types. What it lacks stands here: an unknown key names its nearest known
one, `--key-with-hyphens` is the same as `--key_with_underscores`, `--mapping.key VALUE` sets one entry of a mapping,
and `--input a b c` fills a tuple. A command line is a dataclass, so options exist once, with their types, defaults and
documentation.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from jsonargparse import SUPPRESS, ActionConfigFile, ArgumentParser

from megadec.common.errors import ConfigError, suggest

T = TypeVar("T")
CONFIG_OPTION = "config"
_TYPE_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def parse(kind: type[T], argv: Sequence[str], *, description: str, program: str | None = None) -> T:
    """Build `kind` (a dataclass, nested as it likes) from a command line.

    Raises ConfigError for an unknown key (with the nearest known one), a value of the wrong type, a missing required
    key, or a configuration file that is missing or no YAML. `--help` prints the options and exits.
    """
    arguments = _normalize(kind, argv)
    for place, (name, _, file) in enumerate(argument.partition("=") for argument in list(arguments)):
        if name == f"--{CONFIG_OPTION}":
            values = _checked(kind, _load_yaml(Path(file)), origin=file)
            # jsonargparse takes the text of a file in its place, and so reads what was checked.
            arguments[place] = f"{name}={yaml.safe_dump(values, default_flow_style=True, allow_unicode=True)}"
    return _build(kind, lambda parser: parser.parse_args(arguments), description, program)


def from_dict(kind: type[T], values: Mapping[str, Any], *, origin: str = "configuration") -> T:
    """Build `kind` from nested mappings as YAML and JSON give them. Raises ConfigError as `parse` does."""
    checked = _checked(kind, values, origin)
    return _build(kind, lambda parser: parser.parse_object(checked), origin, None)


def from_yaml(kind: type[T], path: Path) -> T:
    """Build `kind` from a YAML file. Raises ConfigError as `parse` does."""
    return from_dict(kind, _load_yaml(path), origin=str(path))


def to_dict(value: Any) -> Any:
    """A dataclass instance as plain dicts, lists and scalars that YAML and JSON can hold; `from_dict` reads it back."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    """What JSON has no word for: a path as text, a dataclass as its fields."""
    return str(value) if isinstance(value, Path) else dataclasses.asdict(value)


def to_yaml(value: Any) -> str:
    """`to_dict` as YAML text, keys in their order of definition."""
    return yaml.safe_dump(to_dict(value), allow_unicode=True, sort_keys=False)


def take_options(
    argv: Sequence[str], names: Sequence[str], several: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Split `--name VALUE` and `--name=VALUE` for these names off a command line: (their values, the rest).

    For options that a launcher passes beside the run's own. several: those that take more than one value, which come
    back as one JSON list. Raises ConfigError when a value is missing.
    """
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for name in names:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs="+" if name in several else 1)
    try:
        taken, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{str(error.argument_name).partition('/')[0]} needs a value") from error
    for name, values in vars(taken).items():
        setattr(taken, name, values[0] if len(values) == 1 else json.dumps(values, ensure_ascii=False))
    return vars(taken), rest


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command: `train.steps`, its type, its default and what its dataclass's docstring says of it."""

    name: str
    annotation: Any
    default: Any
    help: str


def options_of(kind: Any) -> Iterator[Option]:
    """Every option of a dataclass, those of nested dataclasses as `section.key`."""
    return (option for option in _keys_of(kind) if not dataclasses.is_dataclass(_bare(option.annotation)))


def _keys_of(kind: Any, prefix: str = "") -> Iterator[Option]:
    """Its options and the sections that hold them: `seed`, `data`, `data.sequence_length`, ..."""
    hints, texts = typing.get_type_hints(kind), _field_texts(kind)
    for field in dataclasses.fields(kind):
        name, bare = f"{prefix}{field.name}", _bare(hints[field.name])
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield Option(name, hints[field.name], default, texts.get(field.name, ""))
        if dataclasses.is_dataclass(bare):
            yield from _keys_of(bare, f"{name}.")


def _field_texts(kind: Any) -> dict[str, str]:
    """What the docstrings of a dataclass and of its bases say of its fields: `steps: text`, `beta1, beta2: text`."""
    names = "|".join(sorted((field.name for field in dataclasses.fields(kind)), key=len, reverse=True))
    told = re.compile(rf"(?:^|(?<=\s))((?:{names})(?:(?:, | and )(?:{names}))*): ")
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            _, *parts = told.split(" ".join((base.__doc__ or "").split()))
            for keys, text in zip(parts[::2], parts[1::2], strict=True):
                texts.update(dict.fromkeys(re.split(", | and ", keys), text.strip()))
    return texts


def _add_help(parser: ArgumentParser, kind: Any) -> None:
    """Give each option the text of its dataclass's docstring; what only groups options is not one."""
    texts = {option.name: option.help for option in options_of(kind)}
    for action in parser._actions:  # there is no public way to an option that was added
        if action.dest in texts:
            action.help = texts[action.dest].replace("%", "%%")
        elif action.default == SUPPRESS and action.dest != "help":
            action.help = SUPPRESS


@functools.lru_cache(maxsize=8)  # a tenth of a second for a run
def _parser(kind: type, description: str, program: str | None) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument(f"--{CONFIG_OPTION}", action=ActionConfigFile, help="a YAML file with any of these keys")
    parser.add_class_arguments(kind)
    _add_help(parser, kind)
    return parser


def _build(kind: type[T], read: Any, description: str, program: str | None) -> T:
    noise = io.StringIO()
    try:
        parser = _parser(cast(Any, kind), description, program)
        with contextlib.redirect_stderr(noise):
            namespace = read(parser)
            built = parser.instantiate(namespace)
    except ConfigError:
        raise
    except Exception as error:  # jsonargparse raises argparse.ArgumentError, TypeError and ValueError by turns
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ConfigError):
            raise cause from error
        raise ConfigError(_in_our_words(" ".join(str(error).split()))) from error
    return kind(**{field.name: built[field.name] for field in dataclasses.fields(cast(Any, kind))})


def _in_our_words(message: str) -> str:
    """jsonargparse's sentence on a value of the wrong type as ours; any other as it is."""
    wrong = re.match(r"Parser key \"([^\"]+)\": Expected a <class '(int|float|bool)'>\. Got value: (.*)", message)
    return message if wrong is None else f"{wrong[1]}={wrong[3]} is not {_TYPE_WORDS[wrong[2]]}"


def _normalize(kind: type, argv: Sequence[str]) -> list[str]:
    """Check option names, turn hyphens into underscores, and gather the values of tuples into one JSON list."""
    options = {key.name: key.annotation for key in _keys_of(kind)}
    arguments: list[str] = []
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        if argument in ("-h", "--help"):
            arguments.append("--help")
            continue
        if not argument.startswith("--"):
            raise ConfigError(f"unexpected argument {argument!r}; every value follows its --option")
        given, equals, value = argument[2:].partition("=")
        name = given.replace("-", "_")
        if _is_entry(name, options):
            name = f"{name.rpartition('.')[0]}.{given.rpartition('.')[2]}"  # a mapping's key is taken as it is written
        elif name not in options and name != CONFIG_OPTION:
            raise ConfigError(f"unknown option --{name}{_near_options(name, [*options, CONFIG_OPTION])}")
        values = [value] if equals else []
        while not equals and waiting and not waiting[0].startswith("--"):
            values.append(waiting.pop(0))
        for one in values:
            if one.startswith(("{", "[")):
                _check_once(name, one)
        arguments.append(f"--{name}={_joined(name, values, options.get(name))}")
    return arguments


def _near_options(name: str, options: Sequence[str]) -> str:
    """The option that an unknown one may mean; of a section, its nearest key or all of them."""
    section, dot, key = name.rpartition(".")
    keys = [option.removeprefix(f"{section}.") for option in options if dot and option.startswith(f"{section}.")]
    if not keys:
        return suggest(name, options)
    near = suggest(key, keys).replace("'", f"'{section}.", 1)
    return near or f"; {section} has {', '.join(keys)}"


def _check_once(name: str, value: str) -> None:
    """Raise ConfigError where a mapping on the command line says a key twice; what is no YAML is refused later."""
    loader = _Yaml(value)
    loader.name = f"--{name}"
    with contextlib.suppress(yaml.YAMLError):
        loader.get_single_data()


def _is_entry(name: str, options: Mapping[str, Any]) -> bool:
    """Whether `name` is a key of an option that holds a mapping, as `model.shape.layers` is one of `model.shape`."""
    option, dot, _ = name.rpartition(".")
    return bool(dot) and typing.get_origin(_bare(options.get(option))) is dict


def _joined(name: str, values: list[str], annotation: Any) -> str:
    if _is_tuple(annotation) and not (len(values) == 1 and values[0].startswith("[")):
        # A mapping such as `{path: a}` stays one; other values are plain text.
        return json.dumps([yaml.safe_load(v) if v.startswith("{") else v for v in values], ensure_ascii=False)
    if not values and _bare(annotation) is bool:
        return "true"
    if len(values) != 1:
        raise ConfigError(f"--{name} takes one value, {len(values)} were given: {' '.join(values) or 'none'}")
    if _bare(annotation) is int and re.fullmatch(r"\d+(\.\d*)?([eE]\d+)?", values[0]):
        return str(_whole(float(values[0]))) if not values[0].isdecimal() else values[0]
    return values[0]


class _Yaml(yaml.SafeLoader):
    """YAML whose keys stand once, and where 1e3 is a number, as it is in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raise ConfigError for a key that stands twice: the first would be lost without a word."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                mark = key.start_mark
                raise ConfigError(f"{mark.name}: the key {key.value!r} stands twice, again in line {mark.line + 1}")
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _load_yaml(path: Path) -> Mapping[str, Any]:
    try:
        with path.open(encoding="utf-8") as stream:
            values = yaml.load(stream, _Yaml)  # a SafeLoader
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; a configuration file was expected") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds {type(values).__name__}; a mapping of keys was expected")
    return values


def _checked(kind: Any, values: Any, origin: str, prefix: str = "") -> Any:
    """The values as `kind` wants them: a section without keys is one of defaults, 1e3 is an integer where one belongs.

    Raises ConfigError for the first key that `kind` does not have, at any depth, and for a section that is none.
    """
    bare = _bare(kind)
    if _is_tuple(bare) and isinstance(values, list):
        item = typing.get_args(bare)[0]
        return [_checked(item, one, origin, f"{prefix}[{number}]") for number, one in enumerate(values)]
    if dataclasses.is_dataclass(bare) and not (values is None and bare is not kind):
        if not isinstance(values, Mapping | None):
            raise ConfigError(f"{origin}: {prefix}={values!r} is not a section; `{prefix}:` wants keys below it")
        hints, checked = typing.get_type_hints(bare), {}
        for key, value in (values or {}).items():
            name = f"{prefix}.{key}".lstrip(".")
            if key not in hints:
                raise ConfigError(f"{origin}: unknown key {name!r}{suggest(str(key), hints)}")
            checked[key] = _checked(hints[key], value, origin, name)
        return checked
    if kind is str and (values is None or isinstance(values, bool)):
        found = "empty" if values is None else f"{values}, a truth value"
        raise ConfigError(f"{origin}: {prefix} is {found}; text belongs there: write it in quotes if it is meant so")
    return _whole(values) if bare is int and isinstance(values, float) else values


def _whole(value: float) -> float:
    """1000.0 as 1000; what is no whole number stays, for jsonargparse to refuse."""
    return int(value) if value.is_integer() else value


def _bare(annotation: Any) -> Any:
    """`X` of `X | None`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else annotation
    return annotation


def _is_tuple(annotation: Any) -> bool:
    return typing.get_origin(_bare(annotation)) in (tuple, list)
