"""Plain mappings (YAML, JSON) to typed frozen dataclasses, with all errors reported at once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, Union

from ofa.common.display import short_repr, short_text
from ofa.common.errors import UserError
from ofa.common.text_settings import TextKind

T = TypeVar("T")

_MAX_HINTS = 20
"""Unknown settings for which a similar one is looked for: of a file of others there may be a million."""


class ConfigError(UserError):
    """One or more wrong entries in a configuration; the text has a line for each."""


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from `values`, nested dataclasses included.

    Args:
        cls: a dataclass whose fields are int, float, str, bool, None-unions, tuples, dicts or dataclasses.
        values: plain values, e.g. parsed JSON or a resolved Hydra configuration.
        where: origin of the values, e.g. a file name; each error begins with it.

    Raises:
        ConfigError: naming every unknown, missing or wrongly typed entry, and errors of `__post_init__`.
    """
    errors: list[str] = []
    result = _build(cls, values, where, errors)
    if errors:
        raise ConfigError("\n".join(errors))
    return typing.cast(T, result)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Return one sentence per difference between two nested mappings of plain values."""
    texts = []
    for name in dict.fromkeys([*old, *new]):
        entry, old_value, new_value = _join(where, name), old.get(name), new.get(name)
        if isinstance(old_value, Mapping) and isinstance(new_value, Mapping):
            texts += differences(old_value, new_value, entry)
        elif old_value != new_value:
            texts.append(f"{entry} was {short_repr(old_value)} and is {short_repr(new_value)}")
    return texts


def completed(earlier_record: Mapping[str, Any], record: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return an earlier record of settings, where those that were added since have their defaults.

    Args:
        earlier_record: plain values that an earlier version may have written, and others beside them.
        record: the record of today; only what it has is added.
        cls: dataclass of the settings.
    """
    names = {entry.name for entry in dataclasses.fields(cls)}
    try:
        values = {name: value for name, value in earlier_record.items() if name in names}
        settings: Any = build(cls, values)
    except ConfigError:
        return dict(earlier_record)
    return _with_missing(earlier_record, record, json.loads(json.dumps(dataclasses.asdict(settings))))


def _with_missing(
    earlier: Mapping[str, Any], record: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    result = dict(earlier)
    for name in record:
        if name not in earlier and name in values:
            result[name] = values[name]
        elif all(isinstance(part.get(name), Mapping) for part in (earlier, record, values)):
            result[name] = _with_missing(earlier[name], record[name], values[name])
    return result


def below_minimum(settings: object, minimums: Mapping[str, float]) -> list[str]:
    """Return one sentence per attribute of `settings` that is below its minimum."""
    values = ((name, getattr(settings, name), minimum) for name, minimum in minimums.items())
    return [
        f"{name} is {value}; expected at least {minimum}."
        for name, value, minimum in values
        if value < minimum
    ]


def _build(cls: type, values: object, where: str, errors: list[str]) -> Any:
    if not isinstance(values, Mapping):
        errors.append(f"{where or cls.__name__} is {short_repr(values)}; expected a group of settings.")
        return None
    hints, fields = _hints(cls), _fields(cls)
    num_errors = len(errors)
    errors += _unknown_settings(values, fields, where)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], _join(where, name), errors)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            errors.append(f"{_join(where, name)} is missing; expected {_describe(hints[name])}.")
    if len(errors) > num_errors:
        return None
    try:
        return cls(**arguments)
    except UserError as error:
        errors.append(f"{where}: {error}" if where else str(error))
        return None


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the types of the fields of a dataclass; looking them up takes longer than reading a value."""
    return typing.get_type_hints(cls, include_extras=True)


@cache
def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _unknown_settings(values: Mapping[Any, Any], fields: Mapping[str, object], where: str) -> list[str]:
    unknown_names = [name for name in values if name not in fields]
    errors = []
    for name in unknown_names[:_MAX_HINTS]:
        matches = difflib.get_close_matches(short_text(name), fields, n=1)
        hint = f" Did you mean {matches[0]!r}?" if matches else f" Known: {', '.join(sorted(fields))}."
        errors.append(f"{_join(where, name)} is not a setting.{hint}")
    if len(unknown_names) > _MAX_HINTS:
        errors.append(f"{len(unknown_names) - _MAX_HINTS} more names are no settings.")
    return errors


def _convert(hint: Any, value: Any, where: str, errors: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _convert_text(arguments, value, where, errors)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where, errors)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where, errors)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            errors.append(f"{where} has {len(value)} values; expected {len(arguments)}.")
            return None
        items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_convert(item, entry, f"{where}[{i}]", errors) for i, (item, entry) in pairs)
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _convert(arguments[1], v, _join(where, k), errors) for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _convert_number(value, where, errors)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    errors.append(f"{where} is {short_repr(value)}; expected {_describe(hint)}.")
    return None


def _convert_number(value: float, where: str, errors: list[str]) -> float | None:
    try:
        result = float(value)
    except OverflowError:
        result = math.nan
    if math.isnan(result):
        errors.append(f"{where} is {short_repr(value)}; expected a number.")
        return None
    return result


def _convert_text(arguments: tuple[Any, ...], value: Any, where: str, errors: list[str]) -> Any:
    """Return a value whose type has annotations, read by those that are kinds of text."""
    num_errors = len(errors)
    value = _convert(arguments[0], value, where, errors)
    for kind in arguments[1:]:
        if isinstance(kind, TextKind) and len(errors) == num_errors:
            try:
                value = kind.read(value)
            except UserError as error:
                errors.append(f"{where}: {error}")
    return value


def _convert_union(options: tuple[Any, ...], value: Any, where: str, errors: list[str]) -> Any:
    if value is None and type(None) in options:
        return None
    attempts = []
    for option in options:
        if option is type(None):
            continue
        attempt: list[str] = []
        result = _convert(option, value, where, attempt)
        if not attempt:
            return result
        attempts.append(attempt)
    shortest_attempt: list[str] = min(attempts, key=len)
    errors.extend(shortest_attempt)
    return None


def _join(where: str, name: object) -> str:
    return f"{where}.{short_text(name)}" if where else short_text(name)


def _describe(hint: Any) -> str:
    if hint is type(None):
        return "null"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _describe(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is tuple:
        return f"a list of {_describe(arguments[0])}"
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint, "a group of settings")
