"""Export a sub-network as a bundle that runs, e.g. `export_subnet.py run_name=digits subnet=largest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.evaluate import SubnetEvaluator
from ofa.export import BundleInfo, Preprocessing, export_bundle
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunConfig, open_run
from search.choose import choose_subnet


@dataclass(frozen=True, kw_only=True)
class ExportConfig(RunConfig):
    """Settings of `conf/export_subnet.yaml`."""

    subnet: str
    name: str | None
    formats: tuple[str, ...]
    calibration_images: int


@command("export_subnet", ExportConfig)
def export_subnet(config: ExportConfig) -> Path:
    """Extract, recalibrate and export the sub-network and return the bundle's folder."""
    run = open_run(config)
    chosen = choose_subnet(run.info.space, config.subnet, run.directory.path / "search")
    evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=config.calibration_images)
    network = evaluator.network(chosen.config).cpu()
    facts = run.data.info
    info = BundleInfo(
        run.info.space,
        chosen.config,
        Preprocessing(facts.mean, facts.std, centre_share=facts.centre_share),
        facts.class_names,
        chosen.expected_top1,
        chosen.expected_latency_ms,
        {"run": config.run_name, "subnet": config.subnet, "supernet": run.info.sha256},
    )
    path = run.directory.bundles / (config.name or Path(config.subnet).name.removesuffix(".json"))
    with progress_bar("exporting") as progress:
        report = export_bundle(network, info, path, config.formats, progress=progress)
    for file in report.files.values():
        size, difference = f"{file.bytes / 1e6:.2f} MB", f"{file.max_difference:.1e}"
        print(f"{path / file.file}: {size}, logits within {difference} of PyTorch's")
    print(f"next: python scripts/evaluate_subnet.py run_name={config.run_name} bundle={path.name}")
    return path


if __name__ == "__main__":
    export_subnet()
