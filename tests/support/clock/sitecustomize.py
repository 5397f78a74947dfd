"""Make time.sleep() work under faketime; Python runs this when it starts, if the folder is in PYTHONPATH.

Of the functions that wait, only sleep() gives the system a time instead of a duration, and faketime 0.9.10 shifts this
time although the monotonic clock is not shifted.
"""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
