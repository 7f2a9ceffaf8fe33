"""Reports on a bundle are in its run's folder, or in the working folder where it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa.runs.reports import report_path


@pytest.mark.parametrize("is_run", [True, False])
def test_only_the_bundle_of_a_run_has_its_report_there(tmp_path: Path, is_run: bool) -> None:
    bundle = tmp_path / "mine" / "bundles" / "my_cpu-0.3ms"
    bundle.mkdir(parents=True)
    if is_run:
        (tmp_path / "mine" / "config.json").write_text("{}")
    name = "my_cpu-0.3ms-onnx_int8-digits-test.json"
    expected = tmp_path / "mine" / "reports" / name if is_run else Path(name)
    assert report_path(bundle, "onnx_int8", "digits", "test") == expected


def test_a_relative_path_leads_to_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "mine" / "bundles" / "largest"
    bundle.mkdir(parents=True)
    (tmp_path / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(bundle)
    name = "largest-weights-photos-validation.json"
    path = report_path(Path(), "weights", "photos", "validation")
    assert path == tmp_path / "mine" / "reports" / name
    monkeypatch.chdir(tmp_path)
    path = report_path(Path("mine/bundles/largest"), "weights", "photos", "validation")
    assert path == Path("mine/reports") / name
    monkeypatch.chdir(tmp_path / "mine")
    path = report_path(Path("bundles/largest"), "weights", "photos", "validation")
    assert path.resolve() == tmp_path / "mine" / "reports" / name
