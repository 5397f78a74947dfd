"""Signals that the package sends."""

from __future__ import annotations

from blinker import Signal

#: Sent when a password is changed or an account is closed, so that receivers can revoke access. Receivers get the user;
#: what they write is committed or rolled back with the password.
password_changed = Signal()
#: Sent after the commit that closes an account. Receivers get the user's id.
account_closed = Signal()
