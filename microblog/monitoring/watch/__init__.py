"""``flask tasks watch``: a live view of workers, queues and jobs, with a key for each action.

console.py runs it. Threads (monitoring/events.py, reader.py) update the board (board.py), which returns snapshots
(snapshot.py). screen.py and detail.py draw a snapshot and the operator's choices (choices.py).
"""

from __future__ import annotations
