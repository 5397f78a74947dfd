"""Signals that the package sends."""

from __future__ import annotations

from blinker import Signal

#: A password was changed, or the account closed: what it gave access to must end. Receivers get the user; what they
#: write is committed, or rolled back, with the password.
password_changed = Signal()
#: An account is closed, and that is committed. Receivers get the user's id.
account_closed = Signal()
