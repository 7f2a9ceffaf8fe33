"""Commands: Hydra composes the configuration, typed values go in, errors come out readable.

The only module that knows Hydra and OmegaConf.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape

from ofa.cli import COMMANDS
from ofa.common.command_line import DEFAULT_RUNS_DIR, command_line, run_settings
from ofa.common.config import build
from ofa.common.errors import StoppedError, UserError, unknown_name
from ofa.common.shipped import CONF
from ofa.runs.config import RunConfig
from ofa.runs.directory import newest_run

Config = TypeVar("Config")
Result = TypeVar("Result")


class Command(Generic[Config, Result]):
    """A function of one typed configuration that is also a command of its own.

    Calling it parses the command line; `run` composes the same configuration in this process.
    """

    def __init__(self, name: str, schema: type[Config], function: Callable[[Config], Result]) -> None:
        """Tie `conf/<name>.yaml`, the dataclass `schema` and `function` together."""
        self.name, self._schema, self._function = name, schema, function

    def __call__(self) -> None:
        """Run with the arguments of the command line; exit with 2 after a user's mistake.

        With `-m` it runs once for every combination of the values that settings list. A job that fails does
        not end the others; the exit status is 2 if one did.
        """
        failed_jobs: list[str] = []

        def task(config: DictConfig) -> None:
            try:
                if in_sweep():
                    Console().rule(_job_text())
                self._execute(self._typed(config))
            except UserError as error:
                Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
                if not in_sweep():
                    sys.exit(2)
                failed_jobs.append(_job_text())
            except StoppedError as stopped:
                Console(stderr=True).print(escape(str(stopped)), soft_wrap=True)
                sys.exit(128 + stopped.signal_number)
            except KeyboardInterrupt:
                Console(stderr=True).print(
                    "Interrupted. All finished work is saved; run the same command to continue."
                )
                sys.exit(130)

        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=self.name)(task)()
        except BrokenPipeError:
            # The reader of the output, e.g. head, has ended: so does this.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        if failed_jobs:
            Console(stderr=True).print(
                f"[bold red]failed:[/] {escape('; '.join(failed_jobs))}", soft_wrap=True
            )
            sys.exit(2)

    def run(self, *overrides: str) -> Result:
        """Run with `overrides` such as "run_name=mine" and return what the function returns.

        Raises:
            UserError: for overrides that do not compose, and every mistake the function names.
        """
        return self._execute(self._typed(compose(self.name, overrides)))

    def config(self, *overrides: str) -> Config:
        """Return the typed configuration without running anything."""
        return self._typed(compose(self.name, overrides))

    def _execute(self, config: Config) -> Result:
        """Run the function; an error that a stage remedies gets the line that runs the stage."""
        try:
            return self._function(config)
        except UserError as error:
            if not error.stage:
                raise
            settings = {
                **run_settings(
                    getattr(config, "run_name", None), getattr(config, "runs_dir", DEFAULT_RUNS_DIR)
                ),
                **dict.fromkeys(_mandatory_settings(error.stage), "VALUE"),
                **error.settings,
            }
            raise UserError(f"{error}\nMake it with: {command_line(error.stage, settings)}") from error

    def _typed(self, config: DictConfig) -> Config:
        try:
            values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise UserError(f"{str(error).splitlines()[0]}. Give it on the command line.") from error
        assert isinstance(values, dict)
        if issubclass(self._schema, RunConfig) and values["run_name"] is None:
            values["run_name"] = name = newest_run(values["runs_dir"])
            Console().print(f"run: {escape(name)}, the newest", highlight=False)
        seed = values.get("seed")
        if isinstance(seed, int) and seed < 0:
            raise UserError(f"seed is {seed}; expected 0 or more.")
        return build(self._schema, {str(key): value for key, value in values.items()})


def _mandatory_settings(stage: str) -> set[str]:
    """Return the settings that a sub-command has no values for."""
    return OmegaConf.missing_keys(compose(COMMANDS[stage]))


def command(
    name: str, schema: type[Config]
) -> Callable[[Callable[[Config], Result]], Command[Config, Result]]:
    """Turn a function of one `schema` value into the command configured by `conf/<name>.yaml`."""

    def decorate(function: Callable[[Config], Result]) -> Command[Config, Result]:
        return Command(name, schema, function)

    return decorate


def in_sweep() -> bool:
    """Return whether this is one of the jobs of a command that was started with `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def swept_settings() -> dict[str, str]:
    """Return by name the settings that tell this job of a sweep from its others; empty outside a sweep."""
    if not in_sweep():
        return {}
    parser = OverridesParser.create()
    swept = {o.key_or_group for o in map(parser.parse_override, _sweep_arguments()) if o.is_sweep_override()}
    job = (override.partition("=") for override in HydraConfig.get().overrides.task)
    return {name: value for key, _, value in job if (name := key.lstrip("+")) in swept}


def job_name(name: str, named_settings: Sequence[str] = ()) -> str:
    """Return a name for what this job of a sweep makes, so that each job makes its own.

    Args:
        name: name outside a sweep.
        named_settings: settings that the name tells already, with all that lie below them.
    """
    parts = [name]
    for setting, value in swept_settings().items():
        if not any(setting == known or setting.startswith(f"{known}.") for known in named_settings):
            parts.append(re.sub(r"[^\w.-]+", "_", f"{setting.rpartition('.')[2]}_{value}"))
    return "-".join(parts)


def _job_text() -> str:
    return " ".join(f"{name}={value}" for name, value in swept_settings().items())


def _sweep_arguments() -> list[str]:
    """Return the settings that this process was started with; options such as -m are none."""
    return [argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith("-")]


def compose(name: str | None, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/<name>.yaml`, or nothing, with `overrides`.

    Raises:
        UserError: for an unknown option or group choice; the text lists the known ones.
    """
    # A command that runs others, such as quickstart, is itself inside Hydra.
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error


def compose_group(group: str, choice: str) -> dict[str, Any]:
    """Return the plain values of one file `conf/<group>/<choice>.yaml`.

    Raises:
        UserError: for an unknown choice, with the list of known ones.
    """
    choices = [path.stem for path in (CONF / group).glob("*.yaml")]
    if choice not in choices:
        raise unknown_name(group, choice, choices)
    values = OmegaConf.to_container(compose(None, [f"+{group}={choice}"])[group], resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
