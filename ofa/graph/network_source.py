"""`NetworkSource`: what makes a user's network again, without its weights, and whether it may be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ofa.common import own_code
from ofa.common.command_line import command_line, flattened
from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.graph.settings import LIBRARIES

if TYPE_CHECKING:
    from torch import Tensor, nn

_KIND = "model_functions"


@dataclass(frozen=True)
class NetworkSource:
    """What makes a user's network again, for images of some channels and classes; its weights are elsewhere.

    Attributes:
        name: "torchvision:NAME", "timm:NAME", or "package.module:function".
        kwargs: arguments of the function that makes it.
        side: side of the images in pixels.
        in_channels: channels of the images.
        num_classes: classes of the images, or of their pixels.
        task: kind of the outputs; see `adapt_to_images`.
        classifier_names: names of the parameters that depend on the classes; empty if they are not known.
    """

    name: str
    side: int
    in_channels: int
    num_classes: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    classifier_names: tuple[str, ...] = ()
    task: str = "classification"

    def network(self) -> nn.Module:
        """Return the network with any weights, in eval mode, on the CPU.

        Raises:
            UserError: if it is made by code of one's own that was not named on this machine; as `load_model`
                and `adapt_to_images`.
        """
        if not is_known(self.name, self.kwargs):
            raise UserError(
                f"The network is made by {self.name}, and the file that says so was not made on this "
                "machine. A function that a file names can do anything; if you know and trust it, name it "
                f"yourself once, which runs it: {command_line('inspect', self._settings)}"
            )
        # Imported here, so that reading what a run is made of needs no PyTorch.
        from ofa.graph.adaptation import adapt_to_images
        from ofa.graph.factory import load_model

        network = load_model(self.name, self.kwargs)
        adapt_to_images(
            network,
            side=self.side,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            task=self.task,
        )
        return network

    def check_runs(self, compute: Callable[[Tensor], object], what: str, side: int | None = None) -> None:
        """Run a network whose graph comes from a file on an image, and raise the error if it fails.

        Args:
            compute: computes the network.
            what: name of the file in the error.
            side: side of the image in pixels; None for that of the source.

        Raises:
            UserError: with the first line of the failure.
        """
        import torch

        images = torch.zeros(2, self.in_channels, side or self.side, side or self.side)
        try:
            with torch.inference_mode():
                compute(images)
        except Exception as error:  # Whatever PyTorch raises for a graph that was changed.
            reason = short_text((str(error).splitlines() or [""])[0], 200)
            raise UserError(
                f"The graph in {what} cannot be computed; use an intact copy: "
                f"{type(error).__name__}: {reason}"
            ) from error

    @property
    def _settings(self) -> dict[str, object]:
        return {"model": self.name, **flattened({"model.kwargs": self.kwargs})}


def is_known(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Return whether a model is of a library, or was named with these arguments on this machine before."""
    return name.partition(":")[0] in LIBRARIES or own_code.is_known(_KIND, name, kwargs)


def make_known(name: str, kwargs: Mapping[str, Any]) -> None:
    """Remember that the user has named the function that makes a model."""
    own_code.make_known(_KIND, name, kwargs)
