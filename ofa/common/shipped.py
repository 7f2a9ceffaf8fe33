"""Files that come with the project: `conf/` and `scripts/`, in a checkout or inside the installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ofa.common.errors import UserError, unknown_name

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
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"The {group} file {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"The {group} file {path} holds {values!r}; expected settings by name.")
    return {str(key): value for key, value in values.items()}
