"""`adapt_to_images`: a classification network for images of other classes or channels than its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.data.settings import CLASSIFICATION, MULTI_LABEL, REGRESSION, SEGMENTATION
from ofa.graph.state import state_of
from ofa.supernet.transfer import TransferReport, adapt_channels

# Channels of images that networks are made for.
_USUAL_CHANNELS = (3, 1)
_CLASSIFIERS = (nn.Linear, nn.Conv2d)
# Axes of the outputs after that of the images.
_OUTPUT_AXES = {
    CLASSIFICATION: ("classes",),
    SEGMENTATION: ("classes", "height", "width"),
    MULTI_LABEL: ("labels",),
    REGRESSION: ("numbers",),
}


def adapt_to_images(
    network: nn.Module,
    *,
    side: int,
    in_channels: int,
    num_classes: int,
    task: str = CLASSIFICATION,
    seed: int = 0,
) -> TransferReport:
    """Give a network, in place, the classifier and first convolution that a set of images needs.

    Everything else keeps its weights. First convolutions are summed or spread over other channels, see
    `adapt_channels`; a classifier of other classes is new: the last linear layer or convolution that makes
    the outputs, or all of them where several make them together. The outputs of a task of the user's own can
    be anything, and the classifier of its network is the user's business.

    Args:
        network: a network in eval mode that maps images to logits, (n, classes) or (n, classes, h, w).
        side: side of the images in pixels.
        in_channels: channels of the images.
        num_classes: classes of the images, or of their pixels.
        task: kind of the outputs, a known task; any other name for outputs that stay as they are.
        seed: seed of the new weights.

    Raises:
        UserError: if the network takes no such images, does not return logits, or has no layer that makes
            them.
    """
    names = set(state_of(network))
    own_channels = _own_channels(network, side, in_channels)
    first = () if own_channels == in_channels else _adapt_first(network, side, own_channels, in_channels)
    images = _images(network, side, in_channels)
    # Nothing is known of the outputs of a task of the user's own: they stay as they are.
    if task in _OUTPUT_AXES:
        num_outputs = _num_outputs(network, images, task)
        _check_training_outputs(network, images)
    else:
        num_outputs = num_classes
        _check_own_outputs(network, images)
    layers = () if num_outputs == num_classes else _renew_classifier(network, images, num_classes, task, seed)
    new_names = tuple(name for name in state_of(network) if name.rpartition(".")[0] in layers)
    return TransferReport(
        taken_names=tuple(name for name in names if name not in {*new_names, *first}),
        adapted_names=first,
        new_names=new_names,
        classes=(num_outputs, num_classes),
        in_channels=(own_channels, in_channels),
        classifier_names=new_names,
    )


def _images(network: nn.Module, side: int, in_channels: int) -> Tensor:
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, in_channels, side, side, generator=generator)
    return images.to(parameter.device, parameter.dtype)


@torch.no_grad()
def _own_channels(network: nn.Module, side: int, in_channels: int) -> int:
    """Return the channels of the images that a network takes, those of the set if it can."""
    errors = []
    for channels in dict.fromkeys((in_channels, *_USUAL_CHANNELS)):
        try:
            network(_images(network, side, channels))
            return channels
        except Exception as error:  # Whatever the user's forward raises.
            errors.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    raise UserError(
        f"{type(network).__name__} cannot take images (2, {in_channels}, {side}, {side}): {errors[0]}"
    )


def _adapt_first(network: nn.Module, side: int, own_channels: int, in_channels: int) -> tuple[str, ...]:
    """Adapt the convolutions that read the images, and return the names of their weights."""
    images, readers = _images(network, side, own_channels), dict[str, nn.Conv2d]()
    handles = []
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def record(module: nn.Module, args: tuple[Any, ...], path: str = path) -> None:
                if args and isinstance(args[0], Tensor) and args[0].data_ptr() == images.data_ptr():
                    assert isinstance(module, nn.Conv2d)
                    readers[path] = module

            handles.append(module.register_forward_pre_hook(record))
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    for convolution in readers.values():
        weight = adapt_channels(convolution.weight.detach(), in_channels) if convolution.groups == 1 else None
        if weight is None:
            break
        convolution.weight = nn.Parameter(weight.contiguous())
        convolution.in_channels = in_channels
    if not readers or _own_channels(network, side, in_channels) != in_channels:
        raise UserError(
            f"{type(network).__name__} takes images of {own_channels} channels, and no first convolution "
            f"could be adapted to the {in_channels} of these images. Let the function that makes the network "
            "take the number of channels (model.kwargs)."
        )
    return tuple(f"{path}.weight" for path in readers)


@torch.no_grad()
def _num_outputs(network: nn.Module, images: Tensor, task: str) -> int:
    """Return the classes that a network's outputs tell.

    Raises:
        UserError: if the outputs are none of the task.
    """
    outputs, axes = network(images), _OUTPUT_AXES[task]
    if not isinstance(outputs, Tensor) or outputs.dim() != len(axes) + 1 or len(outputs) != len(images):
        what = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise UserError(
            f"{type(network).__name__} returns {what} for {len(images)} images; expected logits "
            f"({', '.join((str(len(images)), *axes))}) for {task}."
        )
    return int(outputs.shape[1])


@torch.no_grad()
def _check_training_outputs(network: nn.Module, images: Tensor) -> None:
    """Check that a network returns logits in training mode as well; the network stays as it is."""
    outputs = copy.deepcopy(network).train()(images)
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"{type(network).__name__} returns a {type(outputs).__name__} in training mode; expected logits. "
            "Make it without further outputs, for example with model.kwargs.aux_logits=false."
        )


@torch.no_grad()
def _check_own_outputs(network: nn.Module, images: Tensor) -> None:
    """Check that a network returns a tensor or a tuple of tensors, equal ones in both modes."""
    shapes = {
        mode: [tuple(part.shape) for part in _tensors(used(images), type(network).__name__, mode)]
        for mode, used in (("evaluation", network), ("training", copy.deepcopy(network).train()))
    }
    if shapes["evaluation"] != shapes["training"]:
        raise UserError(
            f"{type(network).__name__} returns tensors {shapes['evaluation']} in evaluation mode and "
            f"{shapes['training']} in training mode; expected the same ones."
        )


def _tensors(outputs: object, name: str, mode: str) -> tuple[Tensor, ...]:
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        found = f"a {type(outputs).__name__}"
        raise UserError(f"{name} returns {found} in {mode} mode; expected a tensor, or a tuple of tensors.")
    return parts


def _renew_classifier(
    network: nn.Module, images: Tensor, num_classes: int, task: str, seed: int
) -> tuple[str, ...]:
    """Give the layers that make the outputs other classes, and return the names of these layers."""
    num_outputs = _num_outputs(network, images, task)
    layers = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, _CLASSIFIERS) and len(module.weight) == num_outputs
    ]
    for chosen in (*([layer] for layer in reversed(layers)), layers):
        before = {path: (module.weight, module.bias) for path, module in chosen}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _, module in chosen:
                _renew(module, num_classes)
        with _ignored_errors():
            if _num_outputs(network, images, task) == num_classes:
                return tuple(path for path, _ in chosen)
        for path, module in chosen:
            module.weight, module.bias = before[path]
            _set_outputs(module, num_outputs)
    raise UserError(
        f"{type(network).__name__} tells {num_outputs} classes, and the images have {num_classes}; no layer "
        f"that could be replaced makes its outputs ({listed_names([path for path, _ in layers]) or 'none'} "
        "was tried). Let the function that makes the network take the number of classes, for example "
        "model.kwargs.num_classes."
    )


def _renew(layer: nn.Linear | nn.Conv2d, num_classes: int) -> None:
    """Give a layer new weights for so many outputs, drawn as PyTorch draws them."""
    old = layer.weight
    layer.weight = nn.Parameter(old.new_empty(num_classes, *old.shape[1:]))
    if layer.bias is not None:
        layer.bias = nn.Parameter(old.new_empty(num_classes))
    _set_outputs(layer, num_classes)
    layer.reset_parameters()


def _set_outputs(layer: nn.Linear | nn.Conv2d, num_outputs: int) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features = num_outputs
    else:
        layer.out_channels = num_outputs


@contextmanager
def _ignored_errors() -> Iterator[None]:
    try:
        yield
    except Exception:  # Whatever the user's forward raises at other sizes.
        return
