"""Ending a training in good order when the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether this process was sent SIGTERM, as before a pre-emption.

    Attributes:
        received: see above.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.received = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM instead of dying from it; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.received = True

        previous = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
