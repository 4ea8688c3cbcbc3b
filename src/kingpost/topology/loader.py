"""Read a topology from TOML, JSON or Nix; every problem of its shape at once, each with its place."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, ValidationError

from kingpost.base.errors import InvalidInputError, Location
from kingpost.base.process import CommandError, run
from kingpost.topology import toml
from kingpost.topology.model import Topology
from kingpost.topology.positions import NoPositions, json_positions, toml_positions
from kingpost.topology.problems import InvalidTopologyError, Locator, Problem, locate_all
from kingpost.topology.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

NIX_EVAL_TIMEOUT: Final = 120.0
MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Loaded:
    """A topology and where it came from.

    Attributes:
        topology: The validated value.
        path: The file.
        text: Its text; for a Nix file the JSON that it evaluates to.

    """

    topology: Topology
    path: Path
    text: str

    @cached_property
    def locator(self) -> Locator:
        """Find places in the file; the text is scanned on first use."""
        return _locator(self.path, self.text)

    @cached_property
    def value(self) -> str:
        """Give the topology's value as JSON, in its own order."""
        return self.topology.model_dump_json(by_alias=True)

    @cached_property
    def digest(self) -> str:
        """Give the SHA-256 (hex) of the topology's *value*: comments and order of keys do not change it."""
        canonical = json.dumps(json.loads(self.value), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def load(path: Path) -> Loaded:
    """Read and validate a topology.

    Args:
        path: `*.toml`, `*.json`, or `*.nix` (evaluated by `nix eval --json`).

    Raises:
        InvalidInputError: The file cannot be read or is no TOML, JSON or Nix.
        InvalidTopologyError: Its shape is wrong; all problems at once.
        CannotLookError: A `.nix` file, and Nix is not installed.

    """
    text, data = _read(path)
    if not isinstance(data, dict):
        raise InvalidInputError("a topology is a table of tables", where=str(path))
    try:
        topology = Topology.model_validate(data)
    except ValidationError as error:
        problems = [
            _without_secrets(_problem(details))
            for details in _without_echoes(error.errors(include_url=False))
        ]
        located = locate_all(problems, _locator(path, text))
        raise InvalidTopologyError(str(path), located) from None
    return Loaded(topology, path, text)


def _read(path: Path) -> tuple[str, Any]:
    if path.suffix == ".nix":
        text = _evaluate(path)
        return text, json.loads(text)
    text = _text(path)
    try:
        return text, json.loads(text) if path.suffix == ".json" else toml.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"this is no JSON: {error.msg}", where=Location(str(path), error.lineno, error.colno)
        ) from None
    except toml.TOMLDecodeError as error:
        raise _toml_error(path, text, str(error)) from None
    except RecursionError:
        raise InvalidInputError("it is nested too deeply to be a topology", where=str(path)) from None


_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def _toml_error(path: Path, text: str, said: str) -> InvalidInputError:
    """Let tomlkit say it again, whose messages are the better ones; the place is where the parser stopped."""
    import tomlkit  # noqa: PLC0415 - slow to import, and only needed to complain
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - likewise

    place = _PLACE.search(said)
    if place and place[1]:
        where = Location(str(path), int(place[1]), int(place[2]))
    else:
        where = Location(str(path), text.count("\n") + 1, 1)
    message = _PLACE.sub("", said)
    if "Illegal character '\\n'" in message:
        message = "a string is not closed on its line"
    else:
        try:
            tomlkit.parse(text)
        except TOMLKitError as error:
            message = str(error).rsplit(" at line ", 1)[0]
    return InvalidInputError(f"this is no TOML: {redacted(message)}", where=where)


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InvalidInputError(f"it has {size} bytes: that is no topology", where=str(path))
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInputError(
            "there is no such file", where=str(path), fix="write one with `kingpost init`"
        ) from None
    except IsADirectoryError:
        raise InvalidInputError("this is a directory, not a file", where=str(path)) from None
    except PermissionError:
        raise InvalidInputError(
            "it may not be read", where=str(path), fix="check its owner and mode"
        ) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        column = error.start - before.rfind(b"\n")
        raise InvalidInputError(
            f"it is no UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}",
            where=Location(str(path), before.count(b"\n") + 1, column),
            fix="save it as UTF-8",
        ) from None
    except OSError as error:
        raise InvalidInputError(f"it cannot be read: {error.strerror}", where=str(path)) from None


def _evaluate(path: Path) -> str:
    """Evaluate a Nix file to JSON, without touching a store beyond Nix's own."""
    if not path.is_file():
        _text(path)
    try:
        done = run(
            ["nix-instantiate", "--eval", "--strict", "--json", path.absolute()], timeout=NIX_EVAL_TIMEOUT
        )
    except CommandError as error:
        raise InvalidInputError(
            "Nix cannot evaluate it", where=str(path), why=error.completed.stderr.strip()[-2000:]
        ) from None
    return done.stdout


def _locator(path: Path, text: str) -> Locator:
    if path.suffix == ".nix":
        return NoPositions(str(path))
    return (json_positions if path.suffix == ".json" else toml_positions)(str(path), text)


def _without_echoes(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Drop what pydantic reports twice: for a union's other members."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for error in errors:
        key = (error["loc"], error["msg"])
        if key not in seen:
            seen.add(key)
            kept.append(error)
    return kept


def _without_secrets(problem: Problem) -> Problem:
    """Messages repeat what was written, and what was written in the wrong place may be a secret."""
    return replace(problem, message=redacted(problem.message), fix=redacted(problem.fix))


def _problem(error: ErrorDetails) -> Problem:
    """Turn pydantic's error into ours."""
    path, owner = _walk(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, owner)
    if kind == "missing":
        key = str(path[-1])
        written = f"[{_dotted(path)}]" if _is_table(owner, key) else f"{key} = …"
        return Problem(
            "KP-TOPO-MISSING",
            path,
            f"`{key}` is missing in {_dotted(path[:-1]) or 'the topology'}",
            fix=f"add `{written}`{_described(owner, key)}",
        )
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return Problem(
            "KP-TOPO-KIND",
            path,
            f"{_dotted(path)}: `kind` must say which it is: {_tags(path)}",
        )
    message = error["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        message = f"{error['input']!r} is not one of {error.get('ctx', {}).get('expected', '')}"
        message += _did_you_mean(str(error["input"]), str(error.get("ctx", {}).get("expected", "")))
    elif kind in _KINDS:
        message = f"{_shown(error['input'])} is no {_KINDS[kind]}"
    elif not kind.startswith("value_error"):
        message = f"{message[0].lower()}{message[1:]}"
    return Problem("KP-TOPO-VALUE", path, f"{_dotted(path)}: {message}")


_KINDS: Final = {
    "bool_type": "true or false, which stand without quotes",
    "dict_type": "table: write its keys below a header in brackets, or { key = value }",
    "int_type": "whole number, which stands without quotes",
    "ip_v4_address": "IPv4 address",
    "ip_v4_interface": "IPv4 address with its prefix, such as 172.17.0.1/16",
    "ip_v4_network": "IPv4 network, such as 192.168.1.0/24",
    "list_type": 'list: write ["…", "…"]',
    "model_type": "table: write its keys below a header in brackets, or { key = value }",
    "string_type": "text, which stands in quotes",
    "tuple_type": 'list: write ["…", "…"]',
}
"""What a value is not, by pydantic's name for the error, where its own words speak of Python."""


def _shown(value: object) -> str:
    """Give a value as TOML has it; a table or list only by its kind."""
    if isinstance(value, bool):
        return str(value).lower()
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)


def _is_table(owner: type[BaseModel] | None, key: str) -> bool:
    field = owner.model_fields.get(key) if owner else None
    return field is not None and bool(_models(field.annotation))


def _did_you_mean(word: str, expected: str) -> str:
    close = get_close_matches(word, expected.replace("'", "").replace(" or ", ", ").split(", "), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unknown_key(path: tuple[str | int, ...], owner: type[BaseModel] | None) -> Problem:
    key = str(path[-1])
    known = _keys(owner) if owner else []
    close = get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.6)
    where = _dotted(path[:-1]) or "the topology"
    fix = f"did you mean `{close[0]}`?" if close else f"{where} knows: {', '.join(known)}"
    return Problem("KP-TOPO-UNKNOWN-KEY", path, f"`{key}` is no key of {where}", fix=fix)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _described(owner: type[BaseModel] | None, key: str) -> str:
    field = owner.model_fields.get(key) if owner else None
    return f" ({field.description})" if field and field.description else ""


def _dotted(path: Sequence[str | int]) -> str:
    words = []
    for part in path:
        if isinstance(part, int):
            words.append(f"[{part}]")
        else:
            words.append(f".{part}" if re.fullmatch(r"[\w-]+", part) else f'."{part}"')
    return "".join(words).removeprefix(".")


def _walk(loc: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], type[BaseModel] | None]:
    """Give pydantic's location without the tags of unions in it, and the model that its last key is in."""
    path: list[str | int] = []
    annotation: Any = Topology
    owner: type[BaseModel] | None = None
    for part in loc:
        models = _models(annotation)
        fields = {
            field.alias or name: (model, field.annotation)
            for model in models
            for name, field in model.model_fields.items()
        }
        if len(models) > 1 and part in {_tag(model) for model in models}:
            annotation = next(model for model in models if _tag(model) == part)
            continue
        path.append(part)
        owner = models[0] if len(models) == 1 else None
        if part in fields:
            owner, annotation = fields[str(part)]
        elif not models:
            annotation = _element(annotation)
    return tuple(path), owner


def _tags(path: Sequence[str | int]) -> str:
    """Give the kinds that a value may be of; pydantic names them only when one is written."""
    annotation: Any = Topology
    for part in path:
        models = _models(annotation)
        fields = {
            field.alias or name: field.annotation for m in models for name, field in m.model_fields.items()
        }
        annotation = fields[str(part)] if part in fields else _element(annotation)
    return ", ".join(repr(_tag(model)) for model in _models(annotation))


def _tag(model: type[BaseModel]) -> object:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation)[0] if kind else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Give the models that a value of this type may be, but not those inside a container."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if getattr(annotation, "__origin__", None) in {dict, tuple, list}:
        return []
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _element(annotation: Any) -> Any:
    """Give the type of a dictionary's values or a tuple's elements."""
    arguments = get_args(annotation)
    origin = getattr(annotation, "__origin__", None)
    if origin is dict:
        return arguments[1]
    if origin in {tuple, list}:
        return arguments[0]
    for inner in arguments:
        if getattr(inner, "__origin__", None) in {dict, tuple, list}:
            return _element(inner)
    return Any
