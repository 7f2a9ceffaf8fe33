"""The console command: every script is a sub-command, in a checkout and from an installed wheel."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa.common.cli import COMMANDS, main, usage

PACKAGES = ("ofa", "predictors", "latency_tables", "search")


def test_every_script_is_a_sub_command(root: Path) -> None:
    assert sorted(COMMANDS.values()) == sorted(path.stem for path in (root / "scripts").glob("*.py"))


def test_help_says_what_each_sub_command_does() -> None:
    lines = {line.split()[0]: line for line in usage().splitlines() if line.startswith("  ")}
    assert list(lines) == list(COMMANDS)
    assert lines["search"].endswith("Search the best sub-network")
    assert all(len(line.split()) > 2 for line in lines.values())


def test_an_unknown_sub_command_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt", "run_name=mine"]) == 2
    assert "Unknown command 'fitt'" in (error := capsys.readouterr().err)
    assert "Did you mean 'fit'?" in error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--processes", "0", "train"], "--processes is '0'; expected a number of processes, at least 1."),
        (["--processes=x", "train"], "--processes is 'x'; expected a number"),
        (["--processes"], "--processes is ''; expected a number"),
        (["--processes", "2", "fit"], "ofa fit works in one process; --processes is for train, collect, fi"),
        # Said once, before any process is started.
        (["--processes", "2", "train", "training.batch_size=x"], "training.batch_size is 'x'; expected an"),
    ],
)
def test_mistakes_with_processes_are_named(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {error}")
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_say_nothing_but_what_one_would(tmp_path: Path, root: Path) -> None:
    phases = ("largest", "kernel", "depth_1", "width_1", "width_2")
    short = [
        "space.resolutions=[8]",
        *(f"phases.{phase}.epochs=1" for phase in phases),
        # Leaves 138 images for training: a step in each epoch.
        *("phases.largest.warmup_epochs=0", "training.batch_size=100", "data.validation_size=1300"),
        *("training.validation_images=20", "training.calibration_images=20", "run_name=two"),
    ]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "ofa", "--processes", "2", "train", *short],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("supernet: runs/two/supernet.pt") == 1
    assert done.stdout.rstrip().splitlines()[-1] == "next: ofa collect run_name=two"
    summary = (tmp_path / "runs" / "two" / "summary.json").read_text()
    assert '"processes": 2' in summary


def stages(root: Path) -> Iterator[tuple[str, str]]:
    """Yield file and sub-command of every error of the libraries that names what remedies it."""
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
                    continue
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                values = [keyword.value for keyword in node.keywords if keyword.arg == "stage"]
                values += node.args[2:3] if name == "read_json" else []
                for value in values:
                    if isinstance(value, ast.Constant) and value.value:
                        yield path.name, str(value.value)


def test_errors_of_the_libraries_name_known_sub_commands(root: Path) -> None:
    named = list(stages(root))
    assert len(named) > 15
    assert [entry for entry in named if entry[1] not in COMMANDS] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, without what it depends on."""
    folder, root = tmp_path_factory.mktemp("wheel"), Path(__file__).parents[2]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(root), str(source)], check=True)
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "-w", str(folder / "dist"), str(source)], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    # Without the checkout on the path: neither the folder of the tests nor an editable installation.
    program = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in f'{f}'.lower()]; "
        "from ofa.common import cli; assert cli.__file__.startswith(sys.argv.pop(1)), cli.__file__; "
        "sys.exit(cli.main())"
    )

    def ofa(*arguments: str) -> str:
        command = [sys.executable, "-c", program, str(installed), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "usage: ofa [--processes N] COMMAND" in ofa("--help")
    assert "limits:\n  latency_ms: null" in ofa("search", "--help")
    epochs = [f"phases.{phase}.epochs=1" for phase in ("largest", "elastic")]
    few = ["training.batch_size=100", "data.validation_size=1300"]
    small = ["space.resolutions=[8]", *few, "threads=1", *epochs]
    text = ofa("train", "phases=demo", "training=demo", "phases.largest.warmup_epochs=0", *small)
    assert "next: ofa collect run_name=digits\n" in text
    assert (tmp_path / "runs" / "digits" / "supernet.pt").is_file()
