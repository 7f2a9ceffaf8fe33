"""`CompressionFacts`: how a compressed network differs from the one that it was made of, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from ofa.common.errors import UserError
from ofa.compression.changes import LayerChange
from ofa.compression.settings import SparsePattern


@dataclass(frozen=True)
class CompressionFacts:
    """What of a network was changed: enough to make its layers again, and to train it further.

    Attributes:
        changes: convolutions in other forms.
        pattern: pattern of zeros in the weights; None for none.
        sparse_layers: names of the layers whose zeros a training keeps.
    """

    changes: tuple[LayerChange, ...] = ()
    pattern: SparsePattern | None = None
    sparse_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that each layer changes once, and that zeros have a pattern."""
        names = [change.layer for change in self.changes]
        if len(set(names)) < len(names):
            raise UserError("A layer is changed twice.")
        if (self.pattern is None) == bool(self.sparse_layers):
            raise UserError("A pattern of zeros and the layers that have it belong together.")

    @property
    def digest(self) -> str:
        """Eight digits that tell compressions apart."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:8]

    @property
    def text(self) -> str:
        """What was changed, for users."""
        parts = []
        if self.changes:
            forms = ", ".join(dict.fromkeys(change.form for change in self.changes))
            parts.append(f"{len(self.changes)} convolutions in another form ({forms})")
        if self.pattern is not None:
            parts.append(f"{self.pattern.text} in {len(self.sparse_layers)} layers")
        return " and ".join(parts)
