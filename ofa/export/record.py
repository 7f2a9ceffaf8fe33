"""The record of one format in a bundle: files, checksums, and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue
from ofa.common.files import sha256
from ofa.common.reading import is_file, path_inside
from ofa.common.tensors import file_sha256


@dataclass(frozen=True)
class FilePart:
    """A further file of a format: name, hash and size."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ExportedFile:
    """One format of a bundle.

    Attributes:
        file: name of the (first) file.
        sha256: SHA-256 of that file, hex.
        bytes: size of that file in bytes.
        max_difference: largest |difference| between its logits and PyTorch's.
        parts: further files, which must lie beside the first.
        batch_size: the only number of images per run; None for any number.
        precision: precision of the computation, fp32 by default.
        kept_layers: positions of the layers that are in floating point although `precision` is int8.
        kept_operators: the same for a module that is not a chain of layers: positions of its convolutions and
            linear layers in the engine's graph.
        validation_metric: metric on validation images, measured if the precision is below fp32.
        fp32_validation_metric: metric of the fp32 network on the same images.
    """

    file: str
    sha256: str
    bytes: int
    max_difference: float
    parts: tuple[FilePart, ...] = ()
    batch_size: int | None = None
    precision: str = "fp32"
    kept_layers: tuple[int, ...] = ()
    kept_operators: tuple[int, ...] = ()
    validation_metric: MetricValue | None = None
    fp32_validation_metric: MetricValue | None = None

    @property
    def every_part(self) -> tuple[FilePart, ...]:
        """All files, the first one first."""
        return (FilePart(self.file, self.sha256, self.bytes), *self.parts)

    def checked(self, folder: Path) -> Path:
        """Return the path of the first file in `folder`.

        Raises:
            UserError: if one of the files is missing, outside the folder, or differs from the exported one.
        """
        for part in self.every_part:
            path = path_inside(folder, part.file, "bundle")
            if not is_file(path):
                raise UserError(f"{path} is missing from the bundle.", stage="export")
            # The size is known, so that no larger file is read.
            if path.stat().st_size != part.bytes or file_sha256(path) != part.sha256:
                raise UserError(
                    f"{path} differs from the file that was exported (SHA-256). Use an intact copy, or "
                    "export it again.",
                    stage="export",
                )
        return folder / self.file

    @property
    def kept_text(self) -> str:
        """The parts in floating point, e.g. "layers 0, 3"; empty without any."""
        title = "layers" if self.kept_layers else "operators"
        positions = ", ".join(map(str, self.kept_layers or self.kept_operators))
        return f"{title} {positions}" if positions else ""

    @property
    def total_bytes(self) -> int:
        """Size of all files in bytes."""
        return self.bytes + sum(part.bytes for part in self.parts)


def exported_file(
    content: Mapping[str, bytes], max_difference: float, batch_size: int | None = None
) -> ExportedFile:
    """Return the record of a format's files, given by name; the first is the one to open."""
    first_part, *parts = (FilePart(name, sha256(data), len(data)) for name, data in content.items())
    return ExportedFile(
        first_part.file, first_part.sha256, first_part.bytes, max_difference, tuple(parts), batch_size
    )
