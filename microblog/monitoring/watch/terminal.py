"""Terminal modes while the screen is shown, restored however it ends."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType, TracebackType

from rich.console import Console, RenderableType
from rich.live import Live

from microblog.monitoring.watch.keyboard import ESCAPE_TIMEOUT, Keyboard

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def usable(console: Console) -> bool:
    """Return whether there is a terminal that can be drawn on, and a keyboard."""
    return sys.stdin.isatty() and console.is_terminal and not console.is_dumb_terminal


class Terminal:
    """A context manager: inside, the alternate screen, keys as they are typed, and signals that end it in order.

    `ended_by` is the signal that asked for the end, None before. `wake()` may be called from any thread.
    """

    def __init__(self, console: Console) -> None:
        self.ended_by: signal.Signals | None = None
        self._console = console
        self._stdin = sys.stdin.fileno()
        self._keyboard = Keyboard(self._stdin)
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        self._suspended = False
        self._live: Live | None = None
        self._exit = ExitStack()

    def __enter__(self) -> Terminal:
        with ExitStack() as stack:
            stack.enter_context(_signals(self._on_signal, self._waker))
            stack.enter_context(_no_log_on_the_screen())
            stack.callback(self._give_back)
            self._take()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exit.close()

    def wake(self) -> None:
        """End the wait for keys."""
        with suppress(BlockingIOError):  # full: it is awake
            os.write(self._waker, b".")

    def wait(self, timeout: float) -> list[str]:
        """The keys pressed, waiting at most `timeout` seconds for the first, a wake() or a signal.

        Raises EOFError if the terminal has gone.
        """
        if self._keyboard.pending:
            timeout = min(timeout, ESCAPE_TIMEOUT)
        ready, _, _ = select.select([self._stdin, self._woken], [], [], timeout)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._suspended:
            self._suspend()
        if self._stdin in ready:
            with suppress(BlockingIOError):
                return self._keyboard.read()
        return self._keyboard.flush() if not ready else []

    def draw(self, renderable: RenderableType) -> None:
        """Show `renderable` on the whole screen."""
        if self._live is not None:
            self._live.update(renderable, refresh=True)

    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now; COLUMNS and LINES of the environment may be of another terminal."""
        with suppress(OSError):
            self._console.size = os.get_terminal_size(self._stdin)
        return self._console.size

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._stdin)
        tty.setcbreak(self._stdin, termios.TCSANOW)
        options = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
        self._live = Live(console=self._console, screen=True, **options)  # type: ignore[arg-type]
        self._live.start()

    def _give_back(self) -> None:
        try:
            if self._live is not None:
                self._live.stop()
                self._live = None
        finally:
            with suppress(termios.error):  # the terminal has gone
                termios.tcsetattr(self._stdin, termios.TCSANOW, self._before)

    def _suspend(self) -> None:
        """Ctrl-Z: the shell gets its terminal, and we get ours back when it says so."""
        self._suspended = False
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._on_signal)
        self._take()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in ENDING:
            self.ended_by = self.ended_by or signal.Signals(number)
        elif number == signal.SIGTSTP:
            self._suspended = True


@contextmanager
def _signals(handler: signal.Handlers | object, waker: int) -> Iterator[None]:
    """Inside the block, `handler` has the signals, and each of them also puts a byte into `waker`."""
    numbers = (*ENDING, signal.SIGTSTP, signal.SIGWINCH)
    before = {number: signal.signal(number, handler) for number in numbers}  # type: ignore[arg-type]
    waker_before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(waker_before)
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _no_log_on_the_screen() -> Iterator[None]:
    """Inside the block, the log does not go to a terminal; one that goes to a file goes on."""
    root = logging.getLogger()
    muted = [each for each in root.handlers if isinstance(each, logging.StreamHandler) and each.stream.isatty()]
    for handler in muted:
        root.removeHandler(handler)
    try:
        yield
    finally:
        for handler in muted:
            root.addHandler(handler)
