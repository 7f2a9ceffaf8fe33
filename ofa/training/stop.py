"""`StopRequest`: an orderly end of a training on SIGTERM or SIGINT."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Launchers such as torchrun forward a signal that all processes have already received.
SAME_REQUEST_S = 1.0


class StopRequest:
    """Whether this process received SIGTERM (e.g. before a pre-emption) or SIGINT (Ctrl-C).

    Attributes:
        received: whether a signal was received.
        signal_number: number of the received signal; SIGTERM before one is received.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.received = False
        self.signal_number: int = signal.SIGTERM
        self._since = 0.0

    @property
    def sender(self) -> str:
        """Return the origin of the request as text: the signal, or another process."""
        return signal.Signals(self.signal_number).name if self.received else "another process"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record signals instead of terminating; a second signal at least a second later terminates at once.

        Only the main thread can listen. An ignored signal, such as SIGINT in a background job of a shell
        script, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {int(number): signal.getsignal(number) for number in SIGNALS}
        handlers = {n: handler for n, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}

        def note(number: int, frame: FrameType | None) -> None:
            if not self.received:
                self.received, self.signal_number, self._since = True, number, time.monotonic()
            elif time.monotonic() - self._since >= SAME_REQUEST_S:
                signal.signal(number, handlers[number])
                os.kill(os.getpid(), number)

        for number in handlers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
