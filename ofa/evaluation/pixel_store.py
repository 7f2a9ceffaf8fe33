"""`PixelStore`: the decoded images of a set's splits, so that hundreds of networks see them decoded once."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ofa.common.machine import available_memory_bytes
from ofa.data.base import ImageData, send

MAX_MEMORY_BYTES = 10**9
MAX_FILE_BYTES = 2 * 10**10

Batch = tuple[Tensor, Tensor]
Key = tuple[str, int | None]


@dataclass(frozen=True)
class _OnDisk:
    """Batches in a temporary file that has no name and ends with the process: images and targets in turns.

    `layouts` holds shape and type of each array.
    """

    file: IO[bytes]
    layouts: list[tuple[tuple[int, ...], np.dtype[Any]]]

    def append(self, batch: Batch) -> None:
        for part in batch:
            array = part.cpu().contiguous().numpy()
            _write(self.file, array)
            self.layouts.append((array.shape, array.dtype))

    def batches(self, device: torch.device) -> Iterator[Batch]:
        start = 0
        for images, targets in zip(self.layouts[::2], self.layouts[1::2], strict=True):
            parts = []
            for shape, dtype in (images, targets):
                array = np.empty(shape, dtype)
                self.file.seek(start)
                _read(self.file, array)
                start += array.nbytes
                parts.append(send(torch.from_numpy(array), device))
            yield parts[0], parts[1]


class PixelStore:
    """Unaugmented images of a set as uint8 batches, each decoded once.

    Images are kept as they come from the set, before normalising and resizing, which are cheap: so every
    network gets the same values, whether they are kept or not. Up to `MAX_MEMORY_BYTES`, but at most a
    quarter of the free memory, are in memory, on the device; what is beyond that, up to `MAX_FILE_BYTES`, is
    in a temporary file; any more is decoded anew.
    """

    def __init__(self, data: ImageData, batch_size: int, device: torch.device) -> None:
        """Take the set; nothing is decoded yet."""
        self._data, self._batch_size, self._device = data, batch_size, device
        self._memory: dict[Key, list[Batch]] = {}
        self._files: dict[Key, _OnDisk] = {}
        self._streamed: set[Key] = set()
        self._memory_bytes = self._file_bytes = 0
        free_bytes = available_memory_bytes()
        self._max_bytes = MAX_MEMORY_BYTES if free_bytes is None else min(MAX_MEMORY_BYTES, free_bytes // 4)

    def batches(self, split: str, limit: int | None) -> Iterable[Batch]:
        """Return the first `limit` images of a split and their targets; see `ImageData.pixel_batches`."""
        key = (split, limit)
        if self._data.is_in_memory or key in self._streamed:
            return self._decoded(key)
        if key not in self._memory and key not in self._files:
            self._keep(key)
        if key in self._files:
            return self._files[key].batches(self._device)
        return self._memory[key] if key in self._memory else self._decoded(key)

    def _decoded(self, key: Key) -> Iterator[Batch]:
        split, limit = key
        return self._data.pixel_batches(split, self._batch_size, self._device, limit)

    def _keep(self, key: Key) -> None:
        """Decode the images into memory, or else into a file, if they fit."""
        decoded, batches, num_bytes = self._decoded(key), list[Batch](), 0
        for batch in decoded:
            batches.append(batch)
            num_bytes += _num_bytes(batch)
            if self._memory_bytes + num_bytes > self._max_bytes:
                self._spill(key, chain(batches, decoded))
                return
        self._memory[key] = batches
        self._memory_bytes += num_bytes

    def _spill(self, key: Key, batches: Iterable[Batch]) -> None:
        """Write batches into a temporary file; where that fails, the images will be decoded anew."""
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it is closed with the store)
        on_disk = _OnDisk(file, [])
        num_bytes = 0
        for batch in batches:
            num_bytes += _num_bytes(batch)
            try:
                if self._file_bytes + num_bytes > MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, "too many images")
                on_disk.append(batch)
            except OSError:
                self._streamed.add(key)
                file.close()
                return
        self._files[key] = on_disk
        self._file_bytes += num_bytes


def _num_bytes(batch: Batch) -> int:
    return sum(part.nbytes for part in batch)


def _read(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Fill the array: an unbuffered file may give fewer bytes than asked for."""
    rest = array.data.cast("B")
    while len(rest):
        num_bytes = file.readinto(rest)  # type: ignore[attr-defined]
        assert num_bytes, "the temporary file is shorter than what was written"
        rest = rest[num_bytes:]


def _write(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Write all bytes: an unbuffered file may take fewer than given."""
    rest = array.data.cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]
