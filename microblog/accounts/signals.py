"""What this room announces, so that those above it can act in the same transaction."""

from __future__ import annotations

from blinker import Signal

#: A password was changed, or the account closed: what it gave access to must end. Receivers get the user; what they
#: write is committed, or rolled back, with the password.
password_changed = Signal()
