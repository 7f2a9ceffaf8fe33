"""Graph files that run code: refused unless they were exported here or are trusted."""

from __future__ import annotations

import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from any_modules import two_branches, two_branches_card

from latency_tables.measuring.bundles import measure_bundle
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.common.files import sha256
from ofa.export.bundle import load_bundle
from ofa.export.engines import runnable_file
from ofa.export.evaluate import runnable_module
from ofa.export.fresh_run import FreshRunSettings, load_file, run_fresh
from ofa.export.write import export_bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a graph that another machine exported."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "their state"))
    export_bundle(two_branches(), two_branches_card(), tmp_path / "bundle", ["pt2"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "my state"))
    return tmp_path / "bundle"


def set_trap(bundle: Path, victim: Path) -> None:
    """Make the graph of a bundle create the file `victim` when it is loaded, with a right checksum."""
    source = bundle / "model.pt2"
    code = f"__import__('pathlib').Path({str(victim)!r}).touch()"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(bundle / "new", "w") as new:
        for name in old.namelist():
            content = old.read(name).decode("latin-1")
            if name.endswith("model.json"):
                start = content.index("Symbol('s")
                content = content.replace(content[start : content.index('"', start)], code)
            new.writestr(name, content.encode("latin-1"))
    shutil.move(bundle / "new", source)
    card = json.loads((bundle / "subnet.json").read_text())
    card["files"]["pt2"].update(sha256=sha256(source.read_bytes()), bytes=source.stat().st_size)
    (bundle / "subnet.json").write_text(json.dumps(card))


def test_a_crafted_graph_runs_its_code_only_if_it_is_trusted(bundle: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    set_trap(bundle, victim)
    loaded = load_bundle(bundle)
    with pytest.raises(UserError, match=r"not exported on this machine.* can run any code.*trust=true"):
        load_file(loaded, "pt2")
    with pytest.raises(UserError, match="not exported on this machine"):
        runnable_module(loaded)
    with pytest.raises(UserError, match="process of its own: .*not exported on this machine"):
        run_fresh(bundle, "pt2", FreshRunSettings(runs=1))
    with pytest.raises(UserError, match="not exported on this machine"):
        measure_bundle(loaded, "pt2", DeviceSpec("mine", "pytorch"))
    with pytest.raises(UserError, match=r"pt2 was not exported on this machine.*trust=true"):
        runnable_file(loaded)
    assert not victim.exists()
    with suppress(Exception):  # The trap need not leave a graph that works.
        load_file(loaded, "pt2", trust=True)
    assert victim.exists(), "the trap does not work, so that the test shows nothing"


@torch.no_grad()
def test_a_trusted_graph_runs_and_one_that_is_exported_here_needs_no_trust(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, loaded = torch.randn(2, 1, 10, 14), load_bundle(bundle)
    expected = two_branches()(images)
    torch.testing.assert_close(load_file(loaded, "pt2", trust=True)(images), expected)
    assert run_fresh(bundle, "pt2", FreshRunSettings(runs=1, warmup_runs=0, trust=True)).runs_ms
    assert runnable_file(loaded, trust=True) == "pt2"
    with pytest.raises(UserError, match="not exported on this machine"):
        load_file(loaded, "pt2")  # Trust is given for one command.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "their state"))
    shutil.move(bundle, tmp_path / "moved")
    torch.testing.assert_close(load_file(load_bundle(tmp_path / "moved"), "pt2")(images), expected)


def test_an_export_without_a_state_folder_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    export_bundle(two_branches(), two_branches_card(), tmp_path / "bundle", ["pt2"])
    with pytest.raises(UserError, match="not exported on this machine"):
        load_file(load_bundle(tmp_path / "bundle"), "pt2")
