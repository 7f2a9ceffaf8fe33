"""What a file for an engine says about its network: the model card as texts by key."""

from __future__ import annotations

import importlib.metadata
import json

from ofa.export.card import ModelCard

PROJECT = "once-for-all-search"


def card_metadata(card: ModelCard) -> dict[str, str]:
    """Return what a program needs to feed pixels to a network and to name its answer.

    Every value is text: `name`, `task` and `project_version` as it is, the others as JSON. `mean` and `std`
    are lists of a number per channel, `input_shape` is [channels, height, width]; `expected_metric` is the
    name and value of the metric in fp32, and is left out where nothing is expected. The numbers of a
    regression are `output * target_std + target_mean`, for each column.
    """
    preprocessing, metric = card.preprocessing, card.expected_metric
    values = {
        "class_names": list(card.class_names),
        "input_shape": list(card.input_shape),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "pixel_scale": preprocessing.pixel_scale,
        "resize": preprocessing.resize,
        "centre_share": preprocessing.centre_share,
    }
    if card.target_scale is not None:
        values["target_mean"] = list(card.target_scale.mean)
        values["target_std"] = list(card.target_scale.std)
    if metric is not None:
        values["expected_metric"] = {"name": metric.name, "value": metric.value}
    texts = {"name": card.name, "task": card.task, "project_version": f"{PROJECT} {_version()}"}
    return texts | {key: json.dumps(value) for key, value in values.items()}


def _version() -> str:
    try:
        return importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
