"""LibreTranslate's HTTP API: ``POST /translate``, JSON in and out."""

from __future__ import annotations

import time
from http import HTTPStatus

import orjson
import urllib3
from urllib3.exceptions import HTTPError, TimeoutError

from microblog.posts.translation.models import MAX_TRANSLATION
from microblog.posts.translation.translator import ServiceAway, ServiceRefused
from microblog.text import is_storable, with_unix_line_ends

MAX_ANSWER = 64 * 1024  # bytes
CONNECTIONS = 10  # kept open for the next question
CHUNK = 8192  # bytes


class LibreTranslate:
    """The service at `url`, which may want an `api_key`, and has `timeout` seconds to answer."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        self._address = url.rstrip("/") + "/translate"
        self._api_key = api_key
        self._timeout = timeout
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS)

    def translate(self, text: str, source: str, target: str) -> str:
        """As Translator.translate(). Takes twice the timeout at most, where the answer comes in drops."""
        question = {"q": text, "source": source, "target": target, "format": "text"}
        if self._api_key:
            question["api_key"] = self._api_key
        status, answer = self._ask(question)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServiceAway(f"status {status}")
        if status != HTTPStatus.OK:
            raise ServiceRefused(f"status {status}")
        return _translated_text(answer)

    def _ask(self, question: dict[str, str]) -> tuple[int, bytes]:
        """The status and the body of the answer. Nobody is followed elsewhere: the key is for this address alone."""
        deadline = time.monotonic() + self._timeout
        try:
            response = self._pool.request(
                "POST",
                self._address,
                json=question,
                timeout=urllib3.Timeout(total=self._timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                return response.status, _read(response, deadline)
            finally:
                # One that was read whole has given its connection back by now; of one that was given up more may come.
                response.close()
        except TimeoutError:
            raise ServiceAway("no answer in time") from None
        except HTTPError as error:
            raise ServiceAway(type(error).__name__) from None


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The whole body, if it is a short one and here before `deadline` (of the monotonic clock)."""
    body = b""
    while chunk := response.read1(CHUNK, decode_content=False):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ServiceRefused("a very long answer")
        if time.monotonic() > deadline:
            raise ServiceAway("no end of the answer in time")
    return body


def _translated_text(answer: bytes) -> str:
    try:
        text = orjson.loads(answer)["translatedText"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise ServiceRefused("an answer without a translation") from None
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TRANSLATION or not is_storable(text):
        raise ServiceRefused("a translation that is no text for a post")
    return with_unix_line_ends(text).strip()
