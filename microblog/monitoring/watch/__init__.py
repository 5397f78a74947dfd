"""``flask tasks watch``: all that goes on, on one screen, and a key for each thing that can be done about it.

console.py runs it. Threads (monitoring/events.py, reader.py) feed the board (board.py), which hands out snapshots
(snapshot.py); those and what the operator chose (choices.py) become what is drawn (screen.py, detail.py).
"""

from __future__ import annotations
