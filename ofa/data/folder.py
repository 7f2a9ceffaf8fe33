"""Image sets in folders: a train/val tree with one folder per class, decoded by worker processes."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from typing_extensions import override

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError
from ofa.data.base import ImageData, check_split
from ofa.data.settings import DataInfo, DataSettings

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Mean and standard deviation of ImageNet's training images, the usual normalisation of photographs.
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Share of the short side that the centre crop keeps in evaluation.
CENTRE_SHARE = 0.875


@dataclass(frozen=True)
class _Unreadable:
    """Replaces a batch with an image that could not be decoded: its path and the reason."""

    path: str
    reason: str


class _Images(Dataset[Any]):
    """Decodes (index, seed) pairs; the seed determines the augmentation, None means evaluation."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int], settings: DataSettings) -> None:
        size = settings.image_size
        flip = [v2.RandomHorizontalFlip()] if settings.horizontal_flip else []
        self._train = v2.Compose(
            [v2.RandomResizedCrop(size, scale=(settings.crop_scale, 1.0), antialias=True), *flip]
        )
        self._evaluate = v2.Compose(
            [v2.Resize(round(size / CENTRE_SHARE), antialias=True), v2.CenterCrop(size)]
        )
        self._files, self._labels = [str(file) for file in files], list(labels)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, item: tuple[int, int | None]) -> tuple[Tensor, int] | _Unreadable:
        index, seed = item
        try:
            with Image.open(self._files[index]) as file:
                image = v2.functional.pil_to_tensor(file.convert("RGB"))
        except Exception as error:  # Decoders raise almost anything on damaged files.
            return _Unreadable(self._files[index], str(error))
        if seed is None:
            return self._evaluate(image), self._labels[index]
        # Transforms draw from the global generator: seed it for this image only.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._train(image), self._labels[index]


def _collate(items: list[tuple[Tensor, int] | _Unreadable]) -> tuple[Tensor, Tensor] | _Unreadable:
    pairs: list[tuple[Tensor, int]] = []
    for item in items:
        if isinstance(item, _Unreadable):
            return item
        pairs.append(item)
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


class FolderData(ImageData):
    """`root/train/<class>/*` for training and validation, `root/val/<class>/*` for testing."""

    def __init__(self, settings: DataSettings) -> None:
        """List the files; images are decoded batch by batch.

        Raises:
            UserError: if a folder is missing or empty, there is a single class, or train and val differ.
        """
        root = _root(settings)
        class_names = folder_classes(settings)
        files, labels = _list_files(root / "train", class_names)
        test_files, test_labels = _list_files(root / "val", class_names)
        if settings.validation_size >= len(files):
            raise UserError(
                f"validation_size is {settings.validation_size} but {root / 'train'} holds {len(files)} "
                "images; choose a smaller data.validation_size."
            )
        self._settings = settings
        self._datasets = {
            "train": _Images(files, labels, settings),
            "test": _Images(test_files, test_labels, settings),
        }
        # By a hash of the name, so removing a file moves no other file between the splits.
        order = sorted(
            range(len(files)), key=lambda i: _digest(files[i].relative_to(root), settings.split_seed)
        )
        self._rows = {
            "validation": order[: settings.validation_size],
            "train": order[settings.validation_size :],
            "test": list(range(len(test_files))),
        }
        super().__init__(DataInfo(settings.name, 3, class_names, PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE))

    @override
    def size(self, split: str) -> int:
        check_split(split)
        return len(self._rows[split])

    @override
    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        device: torch.device,
        first: int = 0,
        world: World = SINGLE_PROCESS,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(self._rows["train"]).tolist()
        seeds = rng.integers(0, 2**31, len(order)).tolist()
        items = list(zip(order, seeds, strict=True))
        stop = self.num_batches(batch_size)
        part = world.local_slice(batch_size)
        plan = [items[i * batch_size : (i + 1) * batch_size][part] for i in range(first, stop)]
        yield from self._load(self._datasets["train"], plan, device)

    @override
    def batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        check_split(split)
        rows = [(row, None) for row in self._rows[split][:limit]]
        plan = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        yield from self._load(self._datasets["test" if split == "test" else "train"], plan, device)

    def _load(
        self, dataset: _Images, plan: Sequence[Sequence[tuple[int, int | None]]], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The dataset is indexed by (row, seed) pairs; DataLoader's type hints only allow integers.
        batches: Any = plan
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=min(self._settings.workers, max(len(plan), 1)),
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            # Without its own generator the loader draws from the global one.
            generator=torch.Generator(),
            worker_init_fn=_ignore_stop_signals,
        )
        for batch in loader:
            if isinstance(batch, _Unreadable):
                raise UserError(
                    f"{batch.path} cannot be read as an image ({batch.reason}). Replace or remove the file "
                    "and run the same command again."
                )
            images, labels = batch
            yield self.normalise(images, device), labels.to(device, non_blocking=True)


def _ignore_stop_signals(worker: int) -> None:
    """Ignore stop signals in a worker: the training process still has to save a checkpoint.

    A pre-emption or Ctrl-C signals the whole process group. Workers without a parent exit by themselves.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def folder_classes(settings: DataSettings) -> tuple[str, ...]:
    """Return the class names of a train/val tree: the names of the folders in `root/train`.

    Raises:
        UserError: if a folder is missing, there are fewer than two classes, or train and val differ.
    """
    root = _root(settings)
    train, test = _folders(root / "train"), _folders(root / "val")
    if len(train) < 2:
        classes_text = f"only the class {train[0]!r}" if train else "no class folders"
        raise UserError(
            f"{root / 'train'} has {classes_text}; expected one folder of images per class, 2 at least."
        )
    if train != test:
        only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
        raise UserError(
            f"The classes of {root / 'train'} and {root / 'val'} differ: only in train {only_train}, only in "
            f"val {only_test}. Both need the same class folders."
        )
    return tuple(train)


def _digest(path: Path, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{path.as_posix()}".encode()).digest()


def _root(settings: DataSettings) -> Path:
    if settings.root is None:
        raise UserError(f"Data {settings.name!r} needs its folder: give data.root=FOLDER.")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise UserError(f"data.root {root} is not a folder; expected one with train/ and val/ inside.")
    return root


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        raise UserError(f"{path} is missing; expected data.root to hold train/CLASS/ and val/CLASS/.")
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def _list_files(path: Path, class_names: Sequence[str]) -> tuple[list[Path], list[int]]:
    files: list[Path] = []
    labels: list[int] = []
    empty_names = []
    for label, name in enumerate(class_names):
        paths = sorted(f for f in (path / name).rglob("*") if f.suffix.lower() in EXTENSIONS)
        files += paths
        labels += [label] * len(paths)
        if not paths:
            empty_names.append(name)
    if empty_names:
        raise UserError(
            f"{path} has no images for {', '.join(empty_names)}; expected files ending in "
            f"{', '.join(EXTENSIONS)}."
        )
    return files, labels
