"""Export a sub-network as a bundle that runs, e.g. `export_subnet.py run_name=digits subnet=largest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.checkpoint import load_supernet
from ofa.data import load_data
from ofa.evaluate import SubnetEvaluator
from ofa.export import BundleInfo, Preprocessing, export_bundle
from ofa.launch import choose_accelerator, command
from ofa.progress import progress_bar
from ofa.run import RunDirectory
from search.choose import choose_subnet


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `conf/export_subnet.yaml`."""

    run_name: str
    runs_dir: str
    subnet: str
    name: str | None
    formats: tuple[str, ...]
    calibration_images: int
    data_root: str | None
    accelerator: str
    threads: int | None


@command("export_subnet", ExportConfig)
def export_subnet(config: ExportConfig) -> Path:
    """Extract, recalibrate and export the sub-network and return the bundle's folder."""
    device = choose_accelerator(config.accelerator, config.threads)
    run = RunDirectory(config.runs_dir, config.run_name)
    supernet, made = load_supernet(run.supernet)
    chosen = choose_subnet(made.space, config.subnet, run.path / "search")
    data = load_data(run.load_data_settings(config.data_root))
    evaluator = SubnetEvaluator(supernet.to(device), data, calibration_images=config.calibration_images)
    network = evaluator.network(chosen.config).cpu()
    info = BundleInfo(
        made.space,
        chosen.config,
        Preprocessing(data.info.mean, data.info.std),
        data.info.class_names,
        chosen.expected_top1,
        chosen.expected_latency_ms,
        provenance={"run": config.run_name, "subnet": config.subnet, "supernet": made.sha256},
    )
    path = run.bundles / (config.name or config.subnet.rsplit("/")[-1].removesuffix(".json"))
    with progress_bar("exporting") as progress:
        report = export_bundle(network, info, path, config.formats, progress=progress)
    for file in report.files.values():
        size, difference = f"{file.bytes / 1e6:.2f} MB", f"{file.max_difference:.1e}"
        print(f"{path / file.file}: {size}, logits within {difference} of PyTorch's")
    print(f"next: python scripts/evaluate_subnet.py run_name={config.run_name} bundle={path.name}")
    return path


if __name__ == "__main__":
    export_subnet()
