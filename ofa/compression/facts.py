"""`CompressionFacts`: how a compressed network differs from the one that it was made of, as data."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from ofa.common.errors import UserError
from ofa.compression.changes import LayerChange
from ofa.compression.settings import SparsePattern


@dataclass(frozen=True)
class TensorShape:
    """The shape of a parameter or buffer, by its name."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class InputRange:
    """The values from `minimum` to `maximum` that the input of a layer is rounded between in int8."""

    layer: str
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        """Check that the range is finite and includes 0."""
        if not -math.inf < self.minimum <= 0 <= self.maximum < math.inf:
            raise UserError(
                f"The range of {self.layer} is {self.minimum} to {self.maximum}; expected finite numbers, "
                "the first at most and the second at least 0."
            )


@dataclass(frozen=True)
class CompressionFacts:
    """What of a network was changed: enough to make its layers again, and to train it further.

    Attributes:
        changes: convolutions in other forms.
        pattern: pattern of zeros in the weights; None for none.
        sparse_layers: names of the layers whose zeros a training keeps.
        shapes: shapes of the tensors of the changed network that lost channels.
        input_ranges: ranges of the inputs of layers that the network was trained with; a further training
            makes them wrong.
    """

    changes: tuple[LayerChange, ...] = ()
    pattern: SparsePattern | None = None
    sparse_layers: tuple[str, ...] = ()
    shapes: tuple[TensorShape, ...] = ()
    input_ranges: tuple[InputRange, ...] = ()

    def __post_init__(self) -> None:
        """Check that each layer changes once, and that zeros have a pattern."""
        names = [change.layer for change in self.changes]
        if len(set(names)) < len(names):
            raise UserError("A layer is changed twice.")
        if self.pattern is not None and not self.sparse_layers:
            raise UserError("A pattern of zeros and the layers that have it belong together.")

    @property
    def digest(self) -> str:
        """Eight digits that tell compressions apart."""
        values = asdict(self)
        for name in ("shapes", "input_ranges"):
            if not values[name]:
                del values[name]
        if self.pattern is not None and not self.pattern.inputs:
            del values["pattern"]["inputs"]
        content = json.dumps(values, sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:8]

    @property
    def text(self) -> str:
        """What was changed, for users."""
        parts = []
        if self.changes:
            forms = ", ".join(dict.fromkeys(change.form for change in self.changes))
            parts.append(f"{len(self.changes)} convolutions in another form ({forms})")
        if self.sparse_layers:
            zeros = "zeros" if self.pattern is None else self.pattern.text
            parts.append(f"{zeros} in {len(self.sparse_layers)} layers")
        if self.shapes:
            parts.append("channels left out")
        if self.input_ranges:
            parts.append(f"ranges of int8 trained for {len(self.input_ranges)} layers")
        return " and ".join(parts)
