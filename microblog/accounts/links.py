"""The links that mails carry: signed, good for ``ACCOUNT_LINK_LIFETIME`` seconds, and only once.

None is kept: each has a fingerprint of what it is about to change, and so dies with that change.
"""

from __future__ import annotations

import hmac
from typing import Any

from flask import current_app
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from microblog.accounts.email_change import EmailChange
from microblog.accounts.fingerprint import fingerprint
from microblog.accounts.models import User
from microblog.extensions import db

RESET, CONFIRM = "password-reset", "address-confirmation"


class LinkExpired(Exception):
    """The link was genuine, and is too old."""


class LinkDead(Exception):
    """The link was not made here, was used already, or the account has changed since."""


def to_reset_password(user: User) -> str:
    """The absolute URL at which `user` may set a new password."""
    return _url("auth/reset_password", RESET, user.id, _account(user))


def to_confirm_address(change: EmailChange) -> str:
    """The absolute URL at which whoever reads mails to the new address says so."""
    return _url("account/email", CONFIRM, change.id, _change(change))


def user_who_resets(token: str) -> User:
    """The user for whom to_reset_password() made `token`. Raises LinkExpired and LinkDead."""
    user_id, proof = _read(RESET, token)
    user = User.with_id(user_id)
    if user is None or not hmac.compare_digest(proof, _account(user)):
        raise LinkDead
    return user


def change_that_confirms(token: str) -> EmailChange:
    """The change for which to_confirm_address() made `token`. Raises LinkExpired and LinkDead."""
    change_id, proof = _read(CONFIRM, token)
    change = db.session.get(EmailChange, change_id)
    if change is None or User.with_id(change.user_id) is None or not hmac.compare_digest(proof, _change(change)):
        raise LinkDead
    return change


def _account(user: User) -> str:
    return fingerprint(RESET, user.password_hash, user.email)


def _change(change: EmailChange) -> str:
    done = "" if change.confirmed_at is None else "done"
    return fingerprint(CONFIRM, change.user.password_hash, change.user.email, change.new_address, done)


def _url(path: str, purpose: str, *facts: Any) -> str:
    return f"{current_app.config['PUBLIC_URL']}/{path}/{_serializer(purpose).dumps(facts)}"


def _read(purpose: str, token: str) -> tuple[int, str]:
    try:
        row_id, proof = _serializer(purpose).loads(token, max_age=current_app.config["ACCOUNT_LINK_LIFETIME"])
    except SignatureExpired:
        raise LinkExpired from None
    except BadSignature:
        raise LinkDead from None
    return row_id, proof


def _serializer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=purpose)
