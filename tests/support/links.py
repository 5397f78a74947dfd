"""Links in mails."""

from __future__ import annotations

import re
from email.message import EmailMessage


def link_in(message: EmailMessage) -> str:
    """Return the path of the only link in a mail, which its text and its HTML part share."""
    parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
    [path] = re.findall(r"http://localhost(/\S+)", parts["text/plain"])
    assert f'href="http://localhost{path}"' in parts["text/html"]
    return str(path)
