"""``flask tasks watch``: a live view of workers, queues and jobs, with a key for each action.

main_loop.py runs it. Threads (monitoring/events.py, reader.py) update the data (screen_data.py). screen.py and
detail.py draw a snapshot of it (snapshot.py) and the state of the user interface (ui_state.py), which keys change.
"""

from __future__ import annotations
