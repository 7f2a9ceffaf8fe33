"""`load_model`: a network by the name of what makes it, such as "torchvision:resnet18", with its weights."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.common.own_code import failure_text, own_value, present_folder_first, unknown_part
from ofa.graph.dense_logits import DenseLogits
from ofa.graph.weights import load_weights

Factory = Callable[..., Any]

# What would let a library fetch weights, or read them unchecked.
_WEIGHT_ARGUMENTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "checkpoint_path")
_EXPECTED = "torchvision:NAME, timm:NAME, ofa:NAME, or package.module:function"
_OWN_MODELS = {"unet": "ofa.modules.unet"}


def load_model(name: str, kwargs: Mapping[str, Any] | None = None, weights: Path | None = None) -> nn.Module:
    """Return a network in eval mode, on the CPU; nothing is downloaded.

    Code of the user's module runs: name only modules that you trust. It is imported as `python -m` would,
    with the present folder first on the search path; the folder stays on the path, at its end.

    Args:
        name: "torchvision:NAME", "timm:NAME", "ofa:unet", or "package.module:function", whose function or
            class returns the network.
        kwargs: arguments of the function.
        weights: state dict as a .safetensors file, or a file of `torch.save`; None for those that the
            function gives, which are random for torchvision and timm.

    Raises:
        UserError: for an unknown name, with similar ones; a function that fails, with its error and line; and
            for weights that do not fit, with the names of the first mismatches.
    """
    library, colon, path = name.partition(":")
    if not colon or not library or not path:
        raise UserError(f"model is {name!r}; expected {_EXPECTED}.")
    arguments = dict(kwargs or {})
    if library == "torchvision":
        factory = _torchvision_factory(path, arguments)
    elif library == "timm":
        factory = _timm_factory(path, arguments)
    elif library == "ofa":
        if path not in _OWN_MODELS:
            raise unknown_part("model of this project", path, list(_OWN_MODELS))
        factory = getattr(importlib.import_module(_OWN_MODELS[path]), path)
    else:
        with present_folder_first():
            factory = _user_factory(name)
            network = _made(factory, arguments, name)
            return _finished(network, name, weights)
    return _finished(_made(factory, arguments, name), name, weights)


def _finished(network: nn.Module, name: str, weights: Path | None) -> nn.Module:
    if weights is not None:
        load_weights(network, weights, name)
    library, _, path = name.partition(":")
    returns_dictionary = library == "torchvision" and path in _segmentation_names()
    return (DenseLogits(network) if returns_dictionary else network).eval()


def _segmentation_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(models.segmentation)
    return names


# -- libraries -------------------------------------------------------------------------------------


def _torchvision_factory(name: str, arguments: dict[str, Any]) -> Factory:
    from torchvision import models

    known_names = models.list_models()
    if name not in known_names:
        raise unknown_part("torchvision model", name, known_names)
    _refuse_weights(arguments)
    builder: Factory = models.get_model_builder(name)
    parameters = inspect.signature(builder).parameters
    # Backbones of segmentation and detection would fetch their weights by default.
    arguments |= dict.fromkeys((key for key in ("weights", "weights_backbone") if key in parameters), None)

    def create(**kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Of defaults that are going to change.
            return builder(**kwargs)

    return create


def _timm_factory(name: str, arguments: dict[str, Any]) -> Factory:
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise UserError(
            f"timm:{name} needs the package timm, which is not installed: pip install -e '.[timm]'"
        ) from error
    if not timm.is_model(name):
        raise unknown_part("timm model", name, timm.list_models())
    _refuse_weights(arguments)

    def create(**kwargs: Any) -> Any:
        return timm.create_model(name, pretrained=False, **kwargs)

    return create


def _refuse_weights(arguments: Mapping[str, Any]) -> None:
    wrong = [key for key in arguments if key in _WEIGHT_ARGUMENTS]
    if wrong:
        raise UserError(
            f"The model's arguments hold {', '.join(wrong)}; nothing is downloaded here: give the weights as "
            "a file instead."
        )


# -- the user's modules ----------------------------------------------------------------------------


def _user_factory(name: str) -> Factory:
    factory: Factory = own_value(name, "a function or class that returns a network")
    return factory


def _made(factory: Factory, arguments: Mapping[str, Any], name: str) -> nn.Module:
    """Call a factory.

    Raises:
        UserError: if it fails, or returns no network.
    """
    try:
        network = factory(**arguments)
    except Exception as error:  # Whatever the factory raises.
        written = ", ".join(f"{key}={short_text(value, 40)}" for key, value in arguments.items())
        raise UserError(f"{name}({written}) failed: {failure_text(error)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name} returned a value of type {type(network).__name__}; expected a torch.nn.Module."
        )
    return network
