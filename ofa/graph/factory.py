"""`load_model`: a network by the name of what makes it, such as "torchvision:resnet18", with its weights."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.display import listed_names, short_text
from ofa.common.errors import UserError
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
            raise _unknown("model of this project", path, list(_OWN_MODELS))
        factory = getattr(importlib.import_module(_OWN_MODELS[path]), path)
    else:
        with _present_folder_first():
            factory = _user_factory(library, path, name)
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
        raise _unknown("torchvision model", name, known_names)
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
        raise _unknown("timm model", name, timm.list_models())
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


@contextmanager
def _present_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # For what the network imports later.


def _user_factory(module_name: str, path: str, name: str) -> Factory:
    """Return what `path`, dotted or not, names in a module."""
    value: Any = _user_module(module_name, name)
    where = f"module {module_name}"
    for part in path.split("."):
        if not hasattr(value, part):
            raise _unknown(f"name in {where}", part, [n for n in dir(value) if not n.startswith("_")])
        value, where = getattr(value, part), f"{where}:{part}"
    if not callable(value):
        kind = type(value).__name__
        raise UserError(f"{name} is of type {kind}; expected a function or class that returns a network.")
    factory: Factory = value
    return factory


def _user_module(module_name: str, name: str) -> Any:
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise UserError(
            f"{module_name!r} is a file; a module is named from the present folder on: "
            f"{dotted}:{name.partition(':')[2]}"
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise UserError(f"Module {module_name} cannot be imported: {_failure(error)}") from error
        parent, _, last = missing.rpartition(".")
        folders = getattr(sys.modules.get(parent), "__path__", None) if parent else [str(Path.cwd())]
        names = [module.name for module in pkgutil.iter_modules(folders)]
        kind = f"module in {parent}" if parent else "module"
        raise _unknown(kind, last, names) from error
    except Exception as error:  # Whatever the module raises.
        raise UserError(f"Module {module_name} cannot be imported: {_failure(error)}") from error


def _made(factory: Factory, arguments: Mapping[str, Any], name: str) -> nn.Module:
    """Call a factory.

    Raises:
        UserError: if it fails, or returns no network.
    """
    try:
        network = factory(**arguments)
    except Exception as error:  # Whatever the factory raises.
        written = ", ".join(f"{key}={short_text(value, 40)}" for key, value in arguments.items())
        raise UserError(f"{name}({written}) failed: {_failure(error)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name} returned a value of type {type(network).__name__}; expected a torch.nn.Module."
        )
    return network


def _failure(error: Exception) -> str:
    """Return type and first line of an error, and the innermost line outside this file and PyTorch."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    place = ""
    if isinstance(error, SyntaxError):
        place = f"{Path(error.filename or '').name}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        others = ("/torch/", "<frozen", __file__)
        lines = [frame for frame in frames if not any(part in frame.filename for part in others)]
        place = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else ""
    what = short_text(f"{type(error).__name__}: {text}".removesuffix(": "), 300)
    return f"{what}{f' ({place})' if place else ''}"


def _unknown(kind: str, name: str, known_names: Collection[str]) -> UserError:
    """Return the error for an unknown name, with the closest ones; with all where they are few."""
    matches = difflib.get_close_matches(name, known_names, n=5, cutoff=0.5)
    hint = f"similar: {', '.join(matches)}" if matches else f"known: {listed_names(sorted(known_names))}"
    return UserError(f"Unknown {kind} {name!r}; {hint or 'none'}.")
