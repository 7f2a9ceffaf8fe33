"""The check of all files of a set at its start, by threads, with a memory of earlier checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.header import Header, read_header
from ofa.data.header_cache import AnyHeader, HeaderCache

NUM_THREADS = 8
# Sets of fewer pictures are decoded once; of larger ones only files that do not end as they should.
MAX_DECODED = 2000
MAX_SHOWN = 20
_CHUNK = 256
PICTURES = HeaderCache("pictures", Header.from_values)


def check_pictures(
    root: Path, paths: Sequence[Path], progress: ProgressCallback = silent
) -> list[Header | str]:
    """Return the header of every picture, or why it cannot be read; see `check_files`."""
    is_small = len(paths) < MAX_DECODED

    def read(path: Path) -> Header | str:
        return read_header(path, decode=is_small)

    return check_files(root, paths, read, cache=PICTURES, purpose="checking photographs", progress=progress)


def check_files(
    root: Path,
    paths: Sequence[Path],
    read: Callable[[Path], AnyHeader | str],
    *,
    cache: HeaderCache[AnyHeader],
    purpose: str,
    progress: ProgressCallback,
) -> list[AnyHeader | str]:
    """Return the header of every file, or why it cannot be read.

    Files that were readable before and have not changed since are not opened again.

    Args:
        root: folder of the whole set; what is remembered is remembered for it.
        paths: the files.
        read: returns the header of a file, or why it cannot be read; called by several threads.
        cache: memory of earlier checks.
        purpose: text of the progress.
        progress: called with the number of checked files.
    """
    past_headers = cache.read(root)
    names = [path.relative_to(root).as_posix() for path in paths]

    def header_of(item: tuple[str, Path]) -> AnyHeader | str:
        name, path = item
        header = past_headers.get(name)
        with suppress(OSError):
            if header is not None and header.fits(path.stat()):
                return header
        return read(path)

    headers: list[AnyHeader | str] = []
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for chunk in _chunks(list(zip(names, paths, strict=True))):
            progress(len(headers), len(paths), purpose)
            headers += pool.map(header_of, chunk)
    progress(len(paths), len(paths), purpose)
    readable = {name: entry for name, entry in zip(names, headers, strict=True) if not isinstance(entry, str)}
    if readable != past_headers:
        cache.write(root, readable)
    return headers


def check_readable(paths: Sequence[Path], headers: Sequence[Header | str]) -> None:
    """Raise one error that lists the pictures that cannot be read.

    Raises:
        UserError: naming the first `MAX_SHOWN` of them.
    """
    problems = [(path, entry) for path, entry in zip(paths, headers, strict=True) if isinstance(entry, str)]
    if not problems:
        return
    lines = [f"  {path} ({reason})" for path, reason in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        lines.append(f"  and {len(problems) - MAX_SHOWN} more")
    raise UserError(
        f"{len(problems)} of {len(paths)} photographs cannot be read as an image:\n"
        + "\n".join(lines)
        + "\nReplace or remove them, or leave them out with data.on_unreadable=skip."
    )


def _chunks(items: list[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
