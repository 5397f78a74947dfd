"""Mail addresses, however they are typed."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email


def normal_email(address: str) -> str:
    """The normal form of `address`. Raises ValueError if it is none.

    Without a look into the DNS: whether mail arrives, only a mail can tell. No mailbox names beyond ASCII, since many
    mail servers refuse those.
    """
    try:
        return validate_email(address, check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def comparable(text: str) -> str:
    """`text` as all spellings of one address have it in common; what is no address is only put in lower case."""
    try:
        return normal_email(text).lower()
    except ValueError:
        return text.lower()
