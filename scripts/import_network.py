"""Export a published fixed network as a bundle, e.g. `ofa import-network net_config=PATH weights=PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.architecture.cost import network_cost
from ofa.common.progress import progress_bar
from ofa.common.text_settings import Name, PathText
from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class ImportNetworkConfig(RunConfig):
    """Settings of `conf/import_network.yaml`."""

    net_config: PathText
    run_config: PathText | None
    weights: PathText
    class_names: PathText | None
    space: StagedSpace | None
    name: Name | None
    formats: tuple[str, ...]
    sign_key: PathText | None


@command("import_network", ImportNetworkConfig)
def import_network(config: ImportNetworkConfig) -> Path:
    """Write the bundle and return its folder."""
    from ofa.common.accelerator import threads_set
    from ofa.export.signature import sign_lines, signer_of
    from ofa.export.write import export_bundle
    from ofa.published.bundle import photograph_card
    from ofa.published.network import read_network

    signer, weights = signer_of(config.sign_key), Path(config.weights)
    run_config = Path(config.run_config) if config.run_config else None
    network = read_network(Path(config.net_config), run_config)
    names = Path(config.class_names) if config.class_names else None
    card = photograph_card(network, config.space, weights, names)
    module = network.build(weights)
    name = config.name or network.name
    path = config.directory.new_bundle(name)
    with (
        config.directory.writing_bundle(name),
        threads_set(config.threads),
        progress_bar("exporting") as progress,
    ):
        report = export_bundle(module, card, path, config.formats, progress=progress)
    cost = network_cost(network.specs)
    assert card.subnet is not None
    print(f"{card.subnet.config}\n{cost.macs / 1e6:.1f} M MACs, {cost.parameters / 1e6:.2f} M parameters")
    for file in report.files.values():
        print(f"{path / file.file}: logits within {file.max_difference:.1e} of PyTorch's")
    for line in sign_lines(path, signer):
        print(line)
    return path


if __name__ == "__main__":
    import_network()
