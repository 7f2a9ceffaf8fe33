"""Files that come with the project: `conf/` and `scripts/`, in a checkout or inside the installed package."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ofa.common.command_line import flattened
from ofa.common.config import build
from ofa.common.display import short_repr
from ofa.common.errors import UserError, unknown_name
from ofa.common.reading import read_yaml

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder(name: str) -> Path:
    """Return the folder `name` of the project: of the checkout, or the copy that was installed with it."""
    installed_path = _PACKAGE / name
    return installed_path if installed_path.is_dir() else _PACKAGE.parent / name


CONF = shipped_folder("conf")
SCRIPTS = shipped_folder("scripts")


def preset_names(group: str) -> list[str]:
    """Return the names of the files of `conf/GROUP`."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


class NamedSettings(Protocol):
    """A dataclass of settings that is called like a file of `conf/`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of the file."""


def preset_settings(group: str, value: NamedSettings) -> dict[str, object]:
    """Return the settings that choose `value` on a command line: its file, and what differs from that.

    Raises:
        UserError: if `conf/GROUP/` has no file of the value's name.
    """
    named = read_preset(group, value.name)
    preset = dataclasses.asdict(build(type(value), named, value.name))
    values = {name: new for name, new in dataclasses.asdict(value).items() if new != preset[name]}
    own = flattened({group: {name: new for name, new in values.items() if name in named}})
    # What the file leaves to its default has to be added.
    added = flattened({f"++{group}": {name: new for name, new in values.items() if name not in named}})
    return {group: value.name, **own, **added}


def read_preset(group: str, name: str | Path) -> dict[str, Any]:
    """Return the plain values of `conf/GROUP/NAME.yaml`, or of any YAML file of such values.

    Args:
        group: folder below `conf/`, e.g. "space".
        name: file of that folder without its ending, or a path that ends in .yaml.

    Raises:
        UserError: for an unknown name, with the list of known ones, or a file that is no mapping.
    """
    path = Path(name).expanduser()
    if path.suffix != ".yaml":
        known_names = preset_names(group)
        if str(name) not in known_names:
            raise unknown_name(group, str(name), known_names)
        path = CONF / group / f"{name}.yaml"
    values = read_yaml(path, f"{group} file")
    if not isinstance(values, dict):
        raise UserError(f"The {group} file {path} holds {short_repr(values)}; expected settings by name.")
    return {str(key): value for key, value in values.items()}


def experiment_settings(name: str) -> dict[str, str]:
    """Return what `conf/experiment/NAME.yaml` chooses, as settings: images, space or model, and recipe.

    Raises:
        UserError: for an unknown name.
    """
    values = read_preset("experiment", name)
    chosen = [entry for entry in values.pop("defaults") if isinstance(entry, dict)]
    groups = {key.removeprefix("override /"): choice for entry in chosen for key, choice in entry.items()}
    recipe = groups.pop("training")
    groups.pop("phases")
    return {**groups, "recipe": recipe, **{key: str(value) for key, value in flattened(values).items()}}
