"""Composition of `conf/`: a configuration from its defaults, the choices of its groups, and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ofa.common.errors import UserError, unknown_name
from ofa.common.shipped import CONF, preset_names
from ofa.launch.arguments import prepared_settings, unknown_settings


def compose(name: str | None, settings: Sequence[str] = (), schema: type | None = None) -> DictConfig:
    """Compose `conf/<name>.yaml`, or nothing, with `settings`.

    Args:
        name: file of `conf/` without its ending; None for an empty configuration.
        settings: `NAME=VALUE` or `GROUP=CHOICE`.
        schema: dataclass of the configuration, whose texts are taken as they stand.

    Raises:
        UserError: for a setting that cannot be read, an unknown one or an unknown choice; the text lists the
            known ones.
    """
    overrides = prepared_settings(settings, schema)
    try:
        return _composed(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, name, overrides) from error


def explained(error: Exception, name: str | None, settings: Sequence[str]) -> UserError:
    """Return the error for the user in place of Hydra's, which speaks of its own syntax."""
    groups = [group for group in _groups() if _takes(name, group)]
    choices = [setting for setting in settings if setting.partition("=")[0].lstrip("+") in groups]
    try:
        known_names = list(dict.fromkeys([*_names(_composed(name, choices)), *groups]))
    except (HydraException, OmegaConfBaseException):
        return UserError(str(error).splitlines()[0])
    texts = unknown_settings(settings, known_names)
    return UserError("\n".join(texts) or str(error).splitlines()[0])


def compose_group(group: str, choice: str) -> dict[str, Any]:
    """Return the plain values of one file `conf/<group>/<choice>.yaml`.

    Raises:
        UserError: for an unknown choice, with the list of known ones.
    """
    if choice not in preset_names(group):
        raise unknown_name(group, choice, preset_names(group))
    values = OmegaConf.to_container(compose(None, [f"+{group}={choice}"])[group], resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _composed(name: str | None, overrides: Sequence[str]) -> DictConfig:
    # A command that runs others, such as quickstart, is itself inside Hydra.
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(name, overrides=list(overrides))


def _groups() -> list[str]:
    """Return the folders of `conf/`."""
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())


def _takes(name: str | None, group: str) -> bool:
    """Return whether a configuration takes a choice of a group."""
    try:
        _composed(name, [f"{group}={preset_names(group)[0]}"])
    except (HydraException, OmegaConfBaseException):
        return False
    return True


def _names(config: DictConfig) -> list[str]:
    """Return the dotted names of all settings of a configuration, groups of settings included."""

    def names(values: Mapping[Any, Any], prefix: str) -> list[str]:
        below = [(f"{prefix}{key}", value) for key, value in values.items()]
        nested = [names(value, f"{path}.") for path, value in below if isinstance(value, Mapping)]
        return [*(path for path, _ in below), *(path for part in nested for path in part)]

    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    return names(values, "")
