"""Tokens in mailed links: signed, valid for ``ACCOUNT_LINK_LIFETIME`` seconds, single-use.

They are not stored: each contains a fingerprint of the value that it changes, and becomes invalid with the change.
"""

from __future__ import annotations

import hmac
from typing import Any

from flask import current_app

from microblog.accounts.models import EmailChange, User
from microblog.extensions import db
from microblog.security import LinkInvalid, fingerprint, read_signed, sign

RESET, CONFIRM = "password-reset", "address-confirmation"


def password_reset_url(user: User) -> str:
    """Return the absolute URL at which `user` can set a new password."""
    return _url("auth/reset_password", RESET, user.id, _user_proof(user))


def confirm_email_url(change: EmailChange) -> str:
    """Return the absolute URL that confirms the new address."""
    return _url("account/email", CONFIRM, change.id, _change_proof(change))


def user_of_reset_token(token: str) -> User:
    """Return the user for whom password_reset_url() created `token`. Raises LinkExpired and LinkInvalid."""
    user_id, proof = _read(RESET, token)
    user = User.with_id(user_id)
    if user is None or not hmac.compare_digest(proof, _user_proof(user)):
        raise LinkInvalid
    return user


def email_change_of_token(token: str) -> EmailChange:
    """Return the change for which confirm_email_url() created `token`. Raises LinkExpired and LinkInvalid."""
    change_id, proof = _read(CONFIRM, token)
    change = db.session.get(EmailChange, change_id)
    if change is None or User.with_id(change.user_id) is None or not hmac.compare_digest(proof, _change_proof(change)):
        raise LinkInvalid
    return change


def _user_proof(user: User) -> str:
    return fingerprint(RESET, user.password_hash, user.email)


def _change_proof(change: EmailChange) -> str:
    done = "" if change.confirmed_at is None else "done"
    return fingerprint(CONFIRM, change.user.password_hash, change.user.email, change.new_address, done)


def _url(path: str, purpose: str, *values: Any) -> str:
    return f"{current_app.config['PUBLIC_URL']}/{path}/{sign(purpose, values)}"


def _read(purpose: str, token: str) -> tuple[int, str]:
    row_id, proof = read_signed(purpose, token, current_app.config["ACCOUNT_LINK_LIFETIME"])
    return row_id, proof
