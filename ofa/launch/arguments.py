"""Settings as they are typed, prepared for Hydra: texts arrive as they stand, mistakes get one line each."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Union

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ofa.common.command_line import quoted
from ofa.common.errors import UserError, unknown_name
from ofa.common.shipped import CONF, preset_names
from ofa.common.text_settings import Implied, OpenGroup, ShortForm, StandsFor

_QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""")
# How Hydra writes several values of a sweep, beside commas.
_SWEEP_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle)\(.*\)")
SWEEP_OPTIONS = ("-m", "--multirun")
_GROUPS = frozenset(folder.name for folder in CONF.iterdir() if folder.is_dir())


def prepared_arguments(arguments: Sequence[str], schema: type) -> list[str]:
    """Return the arguments of a command line with its settings prepared; see `prepared_settings`.

    Options, and what follows an option directly, stay as they are.

    Args:
        arguments: what is typed after the command.
        schema: dataclass of the command's settings.

    Raises:
        UserError: naming every argument that cannot be read.
    """
    dashed = [argument for argument in arguments if re.match(r"--\w+(\.\w+)*=", argument)]
    if dashed:
        raise UserError("\n".join(f"A setting has no dashes: {text.lstrip('-')}" for text in dashed))
    sweeps = any(argument in SWEEP_OPTIONS for argument in arguments)
    arguments = _replaced(arguments, schema)
    previous = ["", *arguments]
    is_setting = [
        not argument.startswith("-") and not (before.startswith("-") and before not in SWEEP_OPTIONS)
        for before, argument in zip(previous, arguments, strict=False)
    ]
    settings = [argument for argument, flag in zip(arguments, is_setting, strict=True) if flag]
    texts = prepared_settings(settings, schema, sweeps=sweeps)
    num_implied = len(texts) - len(settings)
    given = iter(texts[num_implied:])
    own = [next(given) if flag else argument for argument, flag in zip(arguments, is_setting, strict=True)]
    return [*own, *texts[:num_implied]]


def prepared_settings(settings: Sequence[str], schema: type | None, *, sweeps: bool = False) -> list[str]:
    """Return `NAME=VALUE` settings as Hydra reads them.

    A value of a text setting is quoted unless it is quoted already, null, or refers to another setting.
    Short forms (see `ShortForm`) are written out, what stands for others (see `StandsFor`) is replaced, and
    what a setting implies (see `Implied`) comes first.

    Args:
        settings: settings as they are typed.
        schema: dataclass of the settings; None to quote nothing.
        sweeps: whether texts may list several values, divided by commas.

    Raises:
        UserError: naming every setting that cannot be read, and every unknown choice of a group.
    """
    parser, texts, errors = OverridesParser.create(), [], []
    settings = settings if schema is None else _replaced(settings, schema)
    for setting in [*_implied(schema, settings), *settings]:
        name, equals, value = setting.partition("=")
        if not equals and not name.startswith("~"):
            errors.append(f"{setting!r} is no setting; expected NAME=VALUE.")
            continue
        if schema is not None and equals and not value.startswith("{"):
            name = _full_name(schema, name)
            setting = f"{name}={value}"
        is_text = schema is not None and equals and _takes_text(schema, name.lstrip("+").split("."), value)
        if is_text and not (sweeps and _SWEEP_FUNCTION.fullmatch(value)):
            values = _listed(value) if sweeps else [value]
            setting = f"{name}={','.join(map(_as_text, values))}"
        try:
            override = parser.parse_override(setting)
        except HydraException:
            errors.append(_unreadable(name, value))
            continue
        if not sweeps and override.is_sweep_override():
            errors.append(_several(name, value))
        errors += _wrong_choices(name, value)
        # Hydra knows no choice "null"; it is written as a group that is left out.
        texts.append(f"~{name}" if value == "null" and name in _GROUPS else setting)
    if errors:
        raise UserError("\n".join(errors))
    return texts


def _implied(schema: type | None, settings: Sequence[str]) -> list[str]:
    """Return the settings that the name of a group stands for, as far as they are not given themselves."""
    if schema is None:
        return []
    given = {name.lstrip("+~"): value for name, _, value in (text.partition("=") for text in settings)}
    implied: dict[str, str] = {}
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        marks = typing.get_args(hint) if typing.get_origin(hint) is Annotated else ()
        short = next((f"{name}.{mark.setting}" for mark in marks if isinstance(mark, ShortForm)), name)
        if any(given.get(key, "null") not in ("null", "") for key in (name, short)):
            for mark in marks:
                implied |= mark.settings if isinstance(mark, Implied) else {}
    return [f"{name}={value}" for name, value in implied.items() if name not in given]


def _replaced(settings: Sequence[str], schema: type) -> list[str]:
    """Return the settings with those that others stand for (see `StandsFor`), where these are not given."""
    given = {text.partition("=")[0].lstrip("+~") for text in settings}
    replaced: list[str] = []
    for setting in settings:
        name, _, value = setting.partition("=")
        marks = getattr(typing.get_type_hints(schema, include_extras=True).get(name), "__metadata__", ())
        mark = next((mark for mark in marks if isinstance(mark, StandsFor)), None)
        others = {} if mark is None or value == "null" else mark.settings_of(value)
        replaced += [setting] if mark is None else [f"{n}={v}" for n, v in others.items() if n not in given]
    return replaced


def _full_name(schema: type, name: str) -> str:
    """Return the name as Hydra takes it: short forms written out, and "++" for an entry of an open group."""
    hint: Any = schema
    names = name.split(".")
    for position, part in enumerate(names):
        hints = typing.get_type_hints(hint, include_extras=True) if dataclasses.is_dataclass(hint) else {}
        hint = _without_none(hints.get(part))
        marks: list[Any] = []
        if typing.get_origin(hint) is Annotated:
            hint, *marks = typing.get_args(hint)
        for mark in marks:
            if isinstance(mark, OpenGroup) and position < len(names) - 1:
                return f"++{name}"
            if isinstance(mark, ShortForm) and position == len(names) - 1:
                return f"{name}.{mark.setting}"
    return name


def _without_none(hint: Any) -> Any:
    """Return the type of an optional group of settings; any other hint as it is."""
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return options[0] if is_union and len(options) == 1 else hint


def _unreadable(name: str, value: str) -> str:
    """Return what is wrong with a setting that Hydra cannot parse."""
    if not re.fullmatch(r"[~+]{0,2}[\w$@.:/{}-]+", name):
        return f"{name!r} cannot be the name of a setting; expected NAME=VALUE."
    written = shlex.quote(f"{name}={quoted(value)}")
    return f"{name}: the value {value!r} cannot be read; as a text it is written {written}."


def _several(name: str, value: str) -> str:
    as_list, as_text = shlex.quote(f"{name}=[{value}]"), shlex.quote(f"{name}={quoted(value)}")
    return (
        f"{name} has several values, {value}: a list is written {as_list}, a text {as_text}; -m runs the "
        "command once for each."
    )


def _wrong_choices(group: str, value: str) -> list[str]:
    """Return an error for every value of a group of `conf/` that is none of its files."""
    known_names = preset_names(group) if re.fullmatch(r"\w+", group) else []
    if not known_names:
        return []
    names = [item.strip().strip("'\"") for item in _listed(value)]
    wrong_names = [n for n in names if n not in (*known_names, "null") and re.fullmatch(r"[^(){}\[\]$]*", n)]
    hint = " Another machine is measured by a kit: ofa kit." if group == "device" else ""
    return [f"{unknown_name(group, name, known_names)}{hint}" for name in wrong_names]


def _as_text(value: str) -> str:
    """Return a text as Hydra takes it for nothing but that text."""
    if value == "null" or "${" in value or _QUOTED.fullmatch(value):
        return value
    return quoted(value, always=True)


def _listed(value: str) -> list[str]:
    """Return the values between the commas that stand in no quotes or brackets."""
    parts, depth, quote, previous = [""], 0, "", ""
    for character in value:
        if quote:
            quote = "" if character == quote and previous != "\\" else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
        previous = character
    return parts


def _takes_text(hint: Any, names: Sequence[str], value: str) -> bool:
    """Return whether the setting `names` below `hint` takes `value` as a text, not as a number or a list."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _takes_text(typing.get_args(hint)[0], names, value)
    if origin in (Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        lists = [option for option in options if typing.get_origin(option) is tuple]
        texts = [option for option in options if option not in lists]
        if lists and value.startswith("["):
            return False
        return bool(texts) and all(_takes_text(option, names, value) for option in texts)
    if not names:
        return hint is str
    if origin is dict:
        return _takes_text(typing.get_args(hint)[1], names[1:], value)
    if not dataclasses.is_dataclass(hint):
        return False
    hints = typing.get_type_hints(hint, include_extras=True)
    return names[0] in hints and _takes_text(hints[names[0]], names[1:], value)


def unknown_settings(settings: Sequence[str], known_names: Sequence[str]) -> list[str]:
    """Return an error for every setting or entry of a group that is unknown and is not added by `+`."""
    changed = [setting for setting in settings if not setting.startswith(("+", "~", "hydra."))]
    names = [name for setting in changed for name in _names(setting)]
    return [_unknown_setting(name, known_names) for name in names if name not in known_names]


def _names(setting: str) -> list[str]:
    """Return the name of a setting, or those of the entries that it gives a group."""
    name, _, value = setting.partition("=")
    if not value.startswith("{"):
        return [name]
    entries = OverridesParser.create().parse_override(setting).value()
    return [f"{name}.{key}" for key in entries] if isinstance(entries, dict) else [name]


def _unknown_setting(name: str, known_names: Sequence[str]) -> str:
    """Return the error for an unknown setting: a similar one, or all of its group."""
    group = name.rpartition(".")[0]
    while group and group not in known_names:
        group = group.rpartition(".")[0]
    siblings = [known for known in known_names if known.rpartition(".")[0] == group]
    if not siblings:
        return f"Unknown setting {name!r}; {group} has none yet. Add it with a plus sign: +{name}=VALUE"
    same_ends = [known for known in known_names if known.rpartition(".")[2] == name.rpartition(".")[2]]
    same_level = [known for known in known_names if known.count(".") == name.count(".")]
    if matches := same_ends or difflib.get_close_matches(name, same_level, n=1):
        return f"Unknown setting {name!r}. Did you mean {matches[0]!r}?"
    return f"Unknown setting {name!r}; known{f' in {group}' if group else ''}: {', '.join(siblings)}."
