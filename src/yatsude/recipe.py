"""What a run is: one TOML file, one table a room, and `--set room.key=value` on top.

Settings are frozen dataclasses beside the class they build. Here a table becomes such a dataclass; an unknown key is
an error that names the nearest known one. What was resolved is written beside every output.

    [train]                 ->  TrainSettings(sequence_length=256, ...)
    sequence_length = 256
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from yatsude.errors import RecipeError, nearest
from yatsude.files import new_file

__all__ = ["Tables", "digest", "read", "resolve", "secret", "write"]

S = TypeVar("S")

Tables = dict[str, dict[str, Any]]
"""A recipe as read: table name -> key -> value."""


def read(path: Path | None, sets: Sequence[str] = ()) -> Tables:
    """Read a recipe file (none: an empty recipe) and lay `table.key=value` settings over it."""
    tables: Tables = {}
    if path is not None:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"no recipe at {path}; see the folder recipes/ for examples") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is not valid TOML: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise RecipeError(f"{path}: '{name}' stands outside any table; write it under one, such as [train]")
    for item in sets:
        (*names, key), value = _split(item)
        place: dict[str, Any] = tables
        for name in names:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise RecipeError(f"--set {item}: '{name}' is a value in the recipe, not a table")
        place[key] = value
    return tables


def resolve(tables: Tables, sections: Mapping[str, type[Any]], name: str, kind: type[S]) -> S:
    """Build the settings of table `name`; every table and key of the recipe must be known to `sections`."""
    for table in tables:
        if table not in sections:
            raise RecipeError(f"unknown table [{table}] in the recipe{nearest(table, sections)}")
    values = tables.get(name, {})
    _refuse_unknown(values, name, kind)
    for key, value in _numbers(values, name):
        if math.isnan(value):
            raise RecipeError(f"{key} = {value}: expected a number")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        hint = ", such as ['one', 'two']" if first["type"] == "tuple_type" else ""
        raise RecipeError(f"{where} = {first['input']!r}: {first['msg']}{hint}") from None


def write(path: Path, sections: Mapping[str, Any], comment: str = "") -> str:
    """Write resolved settings as TOML at `path`, atomically, under a comment; their digest comes back."""
    lines = [comment.rstrip()] if comment else []
    for name, settings in sections.items():
        lines.append(f"[{name}]")
        values = TypeAdapter(type(settings)).dump_python(settings, mode="json")
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    with new_file(path) as draft:
        draft.write_text("\n".join(lines), encoding="utf-8")
    return digest(sections)


def digest(sections: Mapping[str, Any], own: Sequence[Any] = ()) -> str:
    """Hexadecimal SHA-256 of resolved settings, the same whatever order they were given in.

    `own` is what `files.state_of` says of the user's own files that these settings read.
    """
    plain = {name: TypeAdapter(type(s)).dump_python(s, mode="json") for name, s in sections.items()}
    content = json.dumps([plain, *own] if own else plain, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def secret(value: str) -> str:
    """Read `${env:NAME}` from the environment; any other value is itself.

    Only the unread form is kept in settings, so a resolved recipe never holds the secret.
    """
    match = re.fullmatch(r"\$\{env:(\w+)\}", value)
    if not match:
        return value
    if match[1] not in os.environ:
        raise RecipeError(f"{value}: the environment variable {match[1]} is not set")
    return os.environ[match[1]]


def _numbers(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, float]]:
    """Floating-point values of a table, by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{above}.{key}")
        elif isinstance(value, float):
            yield f"{above}.{key}", value


def _refuse_unknown(values: Mapping[str, Any], name: str, kind: type[Any]) -> None:
    """Check the keys of table `name`, and of the tables in it."""
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise RecipeError(f"unknown key '{key}' in [{name}]{nearest(key, known)}")
        if isinstance(value, dict) and dataclasses.is_dataclass(known[key]):
            _refuse_unknown(value, f"{name}.{key}", known[key])


def _split(item: str) -> tuple[list[str], Any]:
    """Take `table.key=value` apart: the names, and the value as TOML reads it."""
    target, equals, text = item.partition("=")
    names = [name.strip() for name in target.split(".")]
    if not (equals and len(names) > 1 and all(names)):
        raise RecipeError(f"--set {item}: expected table.key=value, for example train.sequence_length=256")
    try:
        return names, tomllib.loads(f"v = {text.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        return names, text.strip()  # a bare word is a string: --set model.preset=tiny


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
