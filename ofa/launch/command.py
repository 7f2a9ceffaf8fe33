"""`Command`: a function of a typed configuration as a command, whose errors come out readable."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Generic, NoReturn, TypeVar

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape

from ofa.common.cli import COMMANDS
from ofa.common.command_line import DEFAULT_RUNS_DIR, command_line, run_settings
from ofa.common.config import build
from ofa.common.errors import StoppedError, UserError
from ofa.common.exhausted import exhaustion_text
from ofa.common.machine import allow_open_files
from ofa.common.shipped import CONF
from ofa.common.text_settings import expanded_path
from ofa.launch.arguments import prepared_arguments
from ofa.launch.compose import compose, explained
from ofa.launch.sweeps import in_sweep, job_text
from ofa.runs.config import RunConfig
from ofa.runs.directory import newest_run

Config = TypeVar("Config")
Result = TypeVar("Result")

BEGINS_ANEW = "Files that it had finished are whole; the same command begins anew."


class Command(Generic[Config, Result]):
    """A function of one typed configuration that is also a command of its own.

    Calling it parses the command line; `run` composes the same configuration in this process.
    """

    def __init__(
        self,
        name: str,
        schema: type[Config],
        function: Callable[[Config], Result],
        interrupted: str = BEGINS_ANEW,
    ) -> None:
        """Tie `conf/<name>.yaml`, the dataclass `schema` and `function` together.

        Args:
            name: name of the configuration.
            schema: its type.
            function: what the command does.
            interrupted: what is said after Ctrl-C: what is kept, and how to go on.
        """
        self.name, self.schema, self._function = name, schema, function
        self._interrupted = interrupted

    def __call__(self) -> None:
        """Run with the arguments of the command line; exit with 2 after a user's mistake.

        With `-m` it runs once for every combination of the values that settings list. A job that fails does
        not end the others; the exit status is 2 if one did.
        """
        failed_jobs: list[str] = []
        allow_open_files()
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A letter that the terminal's encoding lacks is written as an escape; stderr does so anyway.
            sys.stdout.reconfigure(errors="backslashreplace")

        def task(config: DictConfig) -> None:
            try:
                if in_sweep():
                    Console().rule(job_text())
                typed = self._typed(config)
                # PyTorch takes seconds to load; a first word comes before.
                if config.get("run_name") is not None:
                    _name_run(config.run_name)
                self._execute(typed)
            except UserError as error:
                if not in_sweep():
                    _exit(error)
                _say(error)
                failed_jobs.append(job_text())
            except BrokenPipeError:
                _end_with_reader()
            except StoppedError as stopped:
                Console(stderr=True).print(escape(str(stopped)), soft_wrap=True)
                sys.exit(128 + stopped.signal_number)

        try:
            self._start(task, prepared_arguments(sys.argv[1:], self.schema))
        except UserError as error:
            _exit(error)
        except KeyboardInterrupt:
            Console(stderr=True).print(f"Interrupted. {self._interrupted}", soft_wrap=True)
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            _end_with_reader()
        if failed_jobs:
            Console(stderr=True).print(
                f"[bold red]failed:[/] {escape('; '.join(failed_jobs))}", soft_wrap=True
            )
            sys.exit(2)

    def _start(self, task: Callable[[DictConfig], None], arguments: Sequence[str]) -> None:
        """Let Hydra run `task` with the arguments; its own errors are explained.

        Raises:
            UserError: for settings that do not compose.
        """
        sys.argv[1:] = arguments
        # Hydra raises its errors only then; otherwise it prints them and exits with 1.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=self.name)(task)()
        except (HydraException, OmegaConfBaseException) as error:
            settings = [argument for argument in arguments if "=" in argument and argument[0] != "-"]
            raise explained(error, self.name, settings) from error

    def run(self, *overrides: str) -> Result:
        """Run with `overrides` such as "run_name=mine" and return what the function returns.

        Raises:
            UserError: for overrides that do not compose, and every mistake the function names.
        """
        return self._execute(self._typed(compose(self.name, overrides, self.schema)))

    def config(self, *overrides: str) -> Config:
        """Return the typed configuration without running anything."""
        return self._typed(compose(self.name, overrides, self.schema))

    def _execute(self, config: Config) -> Result:
        """Run the function; an error that a stage remedies gets the line that runs the stage.

        Errors of exhausted resources, such as memory, become errors for the user.
        """
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
        except Exception as error:
            if not (text := exhaustion_text(error)):
                raise
            raise UserError(text) from error

    def _typed(self, config: DictConfig) -> Config:
        try:
            values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            # Its name in the group alone would not say which setting is missing.
            text = str(error).splitlines()[0].replace(f" {error.key}", f" {error.full_key}")
            raise UserError(f"{text}. Give it on the command line.") from error
        assert isinstance(values, dict)
        if issubclass(self.schema, RunConfig) and values["run_name"] is None:
            values["run_name"] = name = newest_run(expanded_path(values["runs_dir"]))
            _name_run(f"{name}, the newest")
        seed = values.get("seed")
        if isinstance(seed, int) and seed < 0:
            raise UserError(f"seed is {seed}; expected 0 or more.")
        return build(self.schema, {str(key): value for key, value in values.items()})


def _mandatory_settings(stage: str) -> set[str]:
    """Return the settings that a sub-command has no values for."""
    return OmegaConf.missing_keys(compose(COMMANDS[stage]))


def command(
    name: str, schema: type[Config], *, interrupted: str = BEGINS_ANEW
) -> Callable[[Callable[[Config], Result]], Command[Config, Result]]:
    """Turn a function of one `schema` value into the command configured by `conf/<name>.yaml`.

    Args:
        name: name of the configuration.
        schema: its type.
        interrupted: what is said after Ctrl-C.
    """

    def decorate(function: Callable[[Config], Result]) -> Command[Config, Result]:
        return Command(name, schema, function, interrupted)

    return decorate


def _name_run(text: str) -> None:
    """Print the name of the run that a command works on; only once where processes work together."""
    if os.environ.get("RANK", "0") == "0":
        Console().print(f"run: {escape(text)}", highlight=False)


def _end_with_reader() -> NoReturn:
    """End quietly, because the reader of the output, e.g. head, has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _say(error: UserError) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)


def _exit(error: UserError) -> NoReturn:
    _say(error)
    sys.exit(2)
