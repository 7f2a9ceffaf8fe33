"""`AbstractSupernet`: the interface of supernets that evaluation and training use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor, nn

from ofa.space.config import AnyConfig
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace

Network = TypeVar("Network", bound=nn.Module, covariant=True)


class AbstractSupernet(nn.Module, ABC, Generic[Network]):
    """A network that computes every sub-network of its space; which one is an argument of each call.

    In eval mode `supernet(images, config)` equals `supernet.extract(config)(images)` bit for bit.

    Attributes:
        space: the unrestricted space.
        start_space: the sub-networks that its weights were trained for before a training begins: sorting
            channels before the first phase keeps their outputs, and no others; None for all.
    """

    space: SearchSpace
    start_space: SearchSpace | None = None

    @abstractmethod
    def forward(self, images: Tensor, config: AnyConfig) -> Tensor:
        """Return the outputs, e.g. logits (n, num_classes), of sub-network `config`.

        Args:
            images: shape (n, in_channels, resolution, resolution) at the config's resolution.
            config: a network of the space.

        Raises:
            UserError: if the config is outside the space or the images are not of its resolution.
        """

    @abstractmethod
    def extract(self, config: AnyConfig, dropout: float = 0.0) -> Network:
        """Return sub-network `config` with its own weights, in the supernet's mode, dtype and device.

        Its batch-norm statistics are the supernet's shared ones: recalibrate them before use.

        Raises:
            UserError: if the config is outside the space.
        """

    @abstractmethod
    def sort_channels(self, trained_space: SearchSpace, importance: str = "l1") -> None:
        """Sort channels by importance, in place; networks of `trained_space` keep their outputs.

        Args:
            trained_space: a restriction of the space.
            importance: one of `importances`; "taylor" reads the gradients of the parameters.
        """

    @property
    def importances(self) -> tuple[str, ...]:
        """Names of the importances that `sort_channels` knows."""
        return ("l1",)

    @property
    def classifier_parameters(self) -> tuple[str, ...]:
        """Names of the parameters of the classifier, which depend on the classes; empty if it has no name."""
        return ()

    @property
    def can_freeze_batch_norm(self) -> bool:
        """Whether its batch norms are modules whose mode counts."""
        return True

    @property
    @abstractmethod
    def costs(self) -> Mapping[str, Estimator]:
        """Costs of one image by name: "macs", "parameters" and "peak_activation_bytes" (float32)."""
