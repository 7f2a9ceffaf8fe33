"""Converts the networks of torchvision and timm and checks what must hold of each of them.

    python benchmarks/any_model.py --out any_model.jsonl [--only resnet18] [--limit-s 300]

Each network runs in a process of its own, with random weights; a second start continues where the first
ended. Choices: a quarter to all of the channels in multiples of 8, kernels from 3, and depth down to no block
of a chain, as the numbers of the other converters in `data/other_converters.csv` were measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ofa.common.errors import UserError
from ofa.graph.capture import arguments_of, tensors_in
from ofa.graph.convert import make_elastic
from ofa.graph.costs import Product
from ofa.graph.supernet import GraphSupernet

PEERS_PATH = Path(__file__).parent / "data" / "other_converters.csv"
MAX_PARAMETERS = 100e6
# One small network of each family that the other converters were not measured on.
TIMM_PATH = Path(__file__).parent / "data" / "timm_networks.txt"


def model_names() -> list[str]:
    """Return the names of all networks, those of the other converters first."""
    import torchvision

    with PEERS_PATH.open(encoding="utf-8") as file:
        names = [row["model"] for row in csv.DictReader(file)]
    names += [f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)]
    segmentation = torchvision.models.segmentation
    names += [f"segmentation/{name}" for name in torchvision.models.list_models(module=segmentation)]
    return list(
        dict.fromkeys([*names, *(f"timm/{name}" for name in TIMM_PATH.read_text(encoding="utf-8").split())])
    )


def create(name: str) -> tuple[nn.Module, Any]:
    """Return a network in eval mode and an example of two images."""
    library, _, key = name.partition("/")
    torch.manual_seed(0)
    if library == "timm":
        import timm

        network = timm.create_model(key, pretrained=False).eval()
        side = network.pretrained_cfg["input_size"][-1]
        can_be_smaller = not network.pretrained_cfg.get("fixed_input_size", False)
        sides = [96, side] if can_be_smaller else [side]
    else:
        import torchvision

        settings: dict[str, Any] = {"weights": None}
        if library in ("segmentation", "detection"):
            settings["weights_backbone"] = None
        network = torchvision.models.get_model(key, **settings).eval()
        sides = [224, 299] if "vit" in key or "inception" in key else [96, 224]
    if library == "detection":
        return network, ([torch.rand(3, 96, 96), torch.rand(3, 80, 96)],)
    for side in sides:
        example = torch.randn(2, 3, side, side)
        try:
            with torch.no_grad():
                network(example)
            return network, example
        except Exception as error:
            print(f"{name} does not run at {side} px: {str(error)[:100]}", file=sys.stderr)
    raise UserError(f"{name} runs at none of {sides} px.")


def measure(name: str) -> dict[str, Any]:
    """Return what converting a network gives, and which of the properties hold."""
    network, example = create(name)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    row: dict[str, Any] = {"model": name, "parameters": num_parameters}
    if num_parameters > MAX_PARAMETERS:
        return row | {"verdict": "larger than 100 M parameters"}
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    start_s = time.process_time()
    try:
        supernet = make_elastic(network, example, depths=(0.0, 0.5, 1.0)).eval()
    except UserError as error:
        return row | {"verdict": "not converted", "reason": str(error)[:300]}
    row["seconds"] = round(time.process_time() - start_s, 1)
    space, structure = supernet.space, supernet.space.structure
    genomes = np.stack(
        [
            space.genome(space.largest),
            space.genome(space.smallest),
            *space.sample(2, np.random.default_rng(0)),
        ]
    )
    macs = supernet.costs["macs"](genomes)
    row |= {
        "verdict": "converted",
        "groups": len(structure.groups),
        "bound_groups": len(structure.bound_groups),
        "kernels": len(structure.kernels),
        "blocks": len(structure.block_names),
        "forward": "graph" if supernet.runs_graph else "own",
        "coverage": round(coverage(supernet), 4),
        "min_macs_share": round(float(macs[1] / macs[0]), 4),
    }
    unchanged = all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    return row | {"model_unchanged": unchanged} | invariants(network, supernet, example, genomes, macs)


def coverage(supernet: GraphSupernet) -> float:
    """Return the share of the MACs of the largest network in operators that some gene changes."""
    space = supernet.space
    products = space.structure.costs.macs
    values = space.population(space.genome(space.largest)[None]).values(products)[0]
    elastic = np.array([changes(product) for product in products])
    return float(values[elastic].sum() / values.sum())


def changes(product: Product) -> bool:
    """Return whether a cost depends on the sub-network."""
    return bool(product.forms or product.kernel or product.block)


def invariants(
    network: nn.Module, supernet: GraphSupernet, example: Any, genomes: Any, macs: Any
) -> dict[str, Any]:
    """Return which of the properties of a conversion hold, by name."""
    space = supernet.space
    args, kwargs = arguments_of(example)
    result: dict[str, Any] = {}
    expected = network(*args, **kwargs)
    full = supernet(example, space.largest)
    result["largest_equal"] = equal(full, expected)
    extracted_equal, macs_equal, names_equal = [], [], []
    batch = 2
    for index, genome in enumerate(genomes[1:], 1):
        config = space.config(genome)
        extracted = supernet.extract(config).eval()
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            outputs = extracted(*args, **kwargs)
        with sdpa_kernel(SDPBackend.MATH):
            extracted_equal.append(equal(supernet(example, config), outputs))
        macs_equal.append(abs(counter.get_total_flops() / 2 / batch - macs[index]) <= 1e-6 * macs[index])
        skipped = tuple(f"{block}." for block in space.selection(config).skipped)
        names = {key for key in network.state_dict() if not (skipped and key.startswith(skipped))}
        names_equal.append(set(extracted.state_dict()) == names)
    result |= {
        "extracted_equal": all(extracted_equal),
        "macs_equal": all(macs_equal),
        "names_equal": all(names_equal),
    }
    whole = space.only_largest
    supernet.sort_channels(whole)
    result["sorted_difference"] = difference(supernet(example, space.largest), full)
    return result


def equal(first: Any, second: Any) -> bool:
    """Return whether all tensors of two outputs are equal, bit for bit."""
    pairs = zip(tensors_in(first), tensors_in(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def difference(first: Any, second: Any) -> float:
    """Return the largest difference of two outputs, relative to the largest output."""
    pairs = zip(tensors_in(first), tensors_in(second), strict=True)
    values = [
        float((a - b).abs().max() / b.abs().max()) for a, b in pairs if b.is_floating_point() and b.numel()
    ]
    return max(values, default=0.0)


def main() -> None:
    """Measure all networks, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="a network, in this process")
    parser.add_argument("--limit-s", type=float, default=300, help="longest time of a network")
    parser.add_argument("--table", action="store_true", help="print what was measured as a table")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table_lines(read_rows(options.out))))
        return
    if options.only:
        torch.set_num_threads(1)
        print(json.dumps(measure(options.only)))
        return
    done = {row["model"] for row in read_rows(options.out)} if options.out.exists() else set()
    names = [name for name in model_names() if name not in done]
    start_s = time.monotonic()
    for index, name in enumerate(names, 1):
        row = in_process(name, options.limit_s)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        left_s = (time.monotonic() - start_s) / index * (len(names) - index)
        print(f"{index}/{len(names)} {name}: {row['verdict']}, about {left_s / 60:.0f} min left", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table in Markdown: what was converted, and the smallest networks beside those of ModelOpt."""
    with PEERS_PATH.open(encoding="utf-8") as file:
        peers = {row["model"]: row for row in csv.DictReader(file)}
    lines = [
        "| network | MACs that vary | smallest | smallest, ModelOpt | Torch-Pruning | forward | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peer = peers.get(row["model"], {})
        other = peer.get("modelopt_min_macs_share_from_quarter", "")
        other_text = percent(float(other)) if other else {"yes": "converts"}.get(peer.get("modelopt", ""), "")
        other_text = other_text or {"": "", None: ""}.get(peer.get("modelopt"), "fails")
        pruning = {"yes": "runs", "": "", None: ""}.get(peer.get("torch_pruning"), "fails")
        if row["verdict"] == "converted":
            cells = [percent(row["coverage"]), percent(row["min_macs_share"]), other_text, pruning]
            cells += [row["forward"], f"{row['seconds']:.0f}"]
        else:
            cells = [row["verdict"], "", other_text, pruning, "", ""]
        lines.append(f"| {row['model']} | " + " | ".join(cells) + " |")
    return lines


def percent(share: float) -> str:
    """Return a share in percent, with one digit where it is small."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def in_process(name: str, limit_s: float) -> dict[str, Any]:
    """Return the row of a network that is measured in a process of its own."""
    command = [sys.executable, __file__, "--out", "-", "--only", name]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"model": name, "verdict": f"longer than {limit_s:g} s"}
    if answer.returncode:
        return {"model": name, "verdict": "error", "reason": answer.stderr.strip().splitlines()[-1][:300]}
    row: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
