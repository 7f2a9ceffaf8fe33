"""`narrow_channels`: fewer channels in the layers of any network, chosen and fitted without training."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.reading import read_json
from ofa.common.score_file import ScoreFile
from ofa.compression.facts import TensorShape
from ofa.compression.unused_units import cut_shapes, with_shapes
from ofa.evaluation.batches import split_batches
from ofa.evaluation.evaluate import score
from ofa.evaluation.tasks import task_of
from ofa.graph.convert import make_elastic
from ofa.graph.genes import ChoiceRule
from ofa.graph.one_step_pruning import fitted_network, one_step, reconstruction
from ofa.graph.supernet import GraphSupernet
from ofa.graph.weights import load_weights
from ofa.runs.compression_training import StepTraining
from ofa.runs.pruned_files import save_network

NETWORK_FILE, SHAPES_FILE = "network.safetensors", "shapes.json"
_WIDTHS = tuple(part / 16 for part in range(2, 17))


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """The shapes of the tensors that lost channels, as in the file of them."""

    shapes: tuple[TensorShape, ...]


def narrow_channels(training: StepTraining) -> nn.Module:
    """Return the network of a compression with fewer channels; one that was made before is read.

    Of some networks with the asked share of the multiply-accumulates, the one with the same share of every
    layer among them, the best on validation images is taken (Li et al. 2020, EagleEye). The layers of each
    are fitted to what they computed before, and its batch norm is recalibrated.

    Args:
        training: trains the steps of the compression; its teacher is the network.

    Raises:
        UserError: if the network cannot be converted, the share cannot be reached, or a file cannot be
            written.
    """
    original, folder = training.teacher, training.folder / "channels"
    path, shapes_path = folder / NETWORK_FILE, folder / SHAPES_FILE
    if path.exists():
        shapes = build(_Shapes, read_json(shapes_path, "shapes of a network"), str(shapes_path)).shapes
        network = with_shapes(copy.deepcopy(original), shapes)
        load_weights(network, path, "the network with fewer channels")
        return network.eval()
    supernet = elastic_channels(original, training.image_shape, training.settings.channels.divisor)
    network = _best(supernet, training, ScoreFile(folder / "candidates.jsonl"))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(shapes_path, dataclasses.asdict(_Shapes(cut_shapes(network, original))))
    save_network(network, path)
    return network


def elastic_channels(network: nn.Module, image_shape: tuple[int, int, int], divisor: int) -> GraphSupernet:
    """Return a supernet of a network in which channels vary that its own forward can leave out.

    Args:
        network: network in eval mode; not changed.
        image_shape: (channels, height, width) of its images.
        divisor: numbers of channels are multiples of it.

    Raises:
        UserError: if nothing of the network may vary, or it cannot be captured.
    """
    device = next(network.parameters()).device
    model = copy.deepcopy(network).cpu()
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))

    def converted(rules: tuple[ChoiceRule, ...]) -> GraphSupernet:
        return make_elastic(
            model, images, widths=_WIDTHS, kernel_sizes=(), depths=(1.0,), divisor=divisor, rules=rules
        )

    supernet = converted(())
    if names := supernet.space.structure.bound_groups:
        supernet = converted(tuple(ChoiceRule(name, widths=(1.0,)) for name in names))
    return supernet.to(device).eval()


def _best(supernet: GraphSupernet, training: StepTraining, scores: ScoreFile) -> nn.Module:
    """Return the best of some narrower networks, fitted and recalibrated."""
    settings, space = training.settings.channels, supernet.space
    assert settings.macs_share is not None
    full = float(supernet.costs["macs"](space.genomes([space.largest]))[0])
    device, resolution = next(supernet.parameters()).device, training.resolution
    task, images = task_of(training.data).in_units(training.scale), training.fitting_images

    def evaluate(network: nn.Module) -> float:
        batches = split_batches(training.data, "validation", resolution, device, settings.validation_images)
        return task.metric.sign * score(network, batches, task)

    candidates = one_step(
        supernet,
        {"macs": settings.macs_share * full},
        recalibrate=training.recalibrate,
        evaluate=evaluate,
        fitting_images=images,
        num_candidates=settings.candidates,
        scores=scores,
        progress=lambda: training.bar("evaluating networks with fewer channels"),
    )
    config = candidates[0].config
    share = 100 * settings.macs_share
    training.note(f"channels: the best of {len(candidates)} networks with at most {share:g} % of the MACs")
    network = fitted_network(supernet, config, reconstruction(supernet, images))
    training.recalibrate(network)
    if not cut_shapes(network, training.teacher):
        raise UserError("No layer got fewer channels; give a smaller channels.macs_share.")
    return network
