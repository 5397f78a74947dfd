"""Terminal modes while the screen is shown, restored in every case when it ends, and the keys that it sends."""

from __future__ import annotations

import codecs
import logging
import os
import re
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

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

ENTER, ESCAPE, BACKSPACE, TAB, BACKTAB = "enter", "escape", "backspace", "tab", "backtab"
UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"
PAGE_UP, PAGE_DOWN, HOME, END, REDRAW = "page up", "page down", "home", "end", "redraw"

ESCAPE_TIMEOUT = 0.05  # seconds within which the rest of an escape sequence arrives

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_NAMES = {
    "\r": ENTER, "\n": ENTER, "\t": TAB, "\x7f": BACKSPACE, "\x08": BACKSPACE, "\x0c": REDRAW, "\x1b[Z": BACKTAB,
    "\x1b[5~": PAGE_UP, "\x1b[6~": PAGE_DOWN,
    "\x1b[1~": HOME, "\x1b[7~": HOME, "\x1b[4~": END, "\x1b[8~": END,
} | {
    f"\x1b{form}{letter}": name
    for form in ("[", "O")
    for letter, name in {"A": UP, "B": DOWN, "C": RIGHT, "D": LEFT, "H": HOME, "F": END, "M": ENTER}.items()
}  # fmt: skip


def usable(console: Console) -> bool:
    """Return whether stdin is a terminal and `console` can draw on one."""
    return sys.stdin.isatty() and console.is_terminal and not console.is_dumb_terminal


class Keyboard:
    """Reads keys from the terminal with the file descriptor `fd`, which must deliver each byte as it is typed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    @property
    def pending(self) -> bool:
        """Return whether a key is incomplete. If no byte follows within ESCAPE_TIMEOUT, it is the escape key alone."""
        return bool(self._text)

    def read(self) -> list[str]:
        """Return the keys that have arrived, as characters or names from this module. Raises EOFError at the end."""
        data = os.read(self._fd, 1024)
        if not data:
            raise EOFError
        keys, self._text = decode(self._text + self._decoder.decode(data))
        return keys

    def flush(self) -> list[str]:
        """Return the pending key, after no byte has followed."""
        keys = [ESCAPE] if self._text == "\x1b" else []
        self._text = ""
        return keys


def decode(text: str) -> tuple[list[str], str]:
    """Return the keys in `text`, and the rest that may be an incomplete key. Unknown keys are omitted."""
    keys: list[str] = []
    while text:
        if _UNFINISHED.match(text):
            return keys, text
        sequence = _SEQUENCE.match(text)
        if sequence:
            key = _NAMES.get(sequence[0])
        elif text[0] == "\x1b":
            key = ESCAPE
        else:
            key = _NAMES.get(text[0], text[0] if text[0].isprintable() else None)
        if key is not None:
            keys.append(key)
        text = text[len(sequence[0]) if sequence else 1 :]
    return keys, ""


class Terminal:
    """A context manager that shows the alternate screen, reads keys as they are typed, and handles signals.

    `ended_by` is the first signal that requested the end, or None. `interrupt_wait()` may be called from any thread.
    """

    def __init__(self, console: Console) -> None:
        self.ended_by: signal.Signals | None = None
        self._console = console
        self._stdin = sys.stdin.fileno()
        self._keyboard = Keyboard(self._stdin)
        self._wakeup_read, self._wakeup_write = os.pipe()
        for end in (self._wakeup_read, self._wakeup_write):
            os.set_blocking(end, False)
        self._suspended = False
        self._live: Live | None = None
        self._exit = ExitStack()

    def __enter__(self) -> Terminal:
        with ExitStack() as stack:
            stack.enter_context(_signals(self._on_signal, self._wakeup_write))
            stack.enter_context(_mute_terminal_logging())
            stack.callback(self._restore)
            self._set_up()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exit.close()

    def interrupt_wait(self) -> None:
        """Make wait() return."""
        with suppress(BlockingIOError):  # the pipe is full, so that wait() returns anyway
            os.write(self._wakeup_write, b".")

    def wait(self, timeout: float) -> list[str]:
        """Return the keys pressed. Wait at most `timeout` seconds for the first key, interrupt_wait() or a signal.

        Raises EOFError if the terminal is closed.
        """
        if self._keyboard.pending:
            timeout = min(timeout, ESCAPE_TIMEOUT)
        ready, _, _ = select.select([self._stdin, self._wakeup_read], [], [], timeout)
        if self._wakeup_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wakeup_read, 4096)
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
        """Return the current columns and lines. COLUMNS and LINES in the environment may be of another terminal."""
        with suppress(OSError):
            self._console.size = os.get_terminal_size(self._stdin)
        return self._console.size

    def _set_up(self) -> None:
        self._saved_modes = termios.tcgetattr(self._stdin)
        tty.setcbreak(self._stdin, termios.TCSANOW)
        options = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
        self._live = Live(console=self._console, screen=True, **options)  # type: ignore[arg-type]
        self._live.start()

    def _restore(self) -> None:
        try:
            if self._live is not None:
                self._live.stop()
                self._live = None
        finally:
            with suppress(termios.error):  # the terminal is closed
                termios.tcsetattr(self._stdin, termios.TCSANOW, self._saved_modes)

    def _suspend(self) -> None:
        """Suspend the process (Ctrl-Z): restore the terminal for the shell, and set it up again on resume."""
        self._suspended = False
        self._restore()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._on_signal)
        self._set_up()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in END_SIGNALS:
            self.ended_by = self.ended_by or signal.Signals(number)
        elif number == signal.SIGTSTP:
            self._suspended = True


@contextmanager
def _signals(handler: signal.Handlers | object, wakeup_fd: int) -> Iterator[None]:
    """Install `handler` for the signals inside the block. Each signal also writes a byte to `wakeup_fd`."""
    numbers = (*END_SIGNALS, signal.SIGTSTP, signal.SIGWINCH)
    old_handlers = {number: signal.signal(number, handler) for number in numbers}  # type: ignore[arg-type]
    old_wakeup_fd = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_wakeup_fd)
        for number, old_handler in old_handlers.items():
            signal.signal(number, old_handler)


@contextmanager
def _mute_terminal_logging() -> Iterator[None]:
    """Remove the log handlers that write to a terminal inside the block. Logging to files continues."""
    root = logging.getLogger()
    muted = [each for each in root.handlers if isinstance(each, logging.StreamHandler) and each.stream.isatty()]
    for handler in muted:
        root.removeHandler(handler)
    try:
        yield
    finally:
        for handler in muted:
            root.addHandler(handler)
