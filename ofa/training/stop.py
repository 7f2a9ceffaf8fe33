"""Ending a training in good order when the system, or the user, asks for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Launchers such as torchrun send a signal on that the terminal or the scheduler has sent to all processes.
SAME_REQUEST_S = 1.0


class StopRequest:
    """Whether this process was told to stop by SIGTERM, as before a pre-emption, or SIGINT (Ctrl-C).

    Attributes:
        received: see above.
        signal_number: of the signal; SIGTERM before there is one.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.received = False
        self.signal_number: int = signal.SIGTERM
        self._since = 0.0

    @property
    def sender(self) -> str:
        """Return what told the training to stop: the signal, or another of its processes."""
        return signal.Signals(self.signal_number).name if self.received else "another process"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals instead of dying from them; a second one, a second later, ends at once.

        Only the main thread can listen. A signal that the process ignores, as SIGINT in the background of a
        shell script, stays ignored.
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
