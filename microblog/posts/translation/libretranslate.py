"""LibreTranslate's HTTP API: ``POST /translate`` and ``GET /languages``."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import Any

import orjson
import urllib3
from urllib3.exceptions import HTTPError, TimeoutError

from microblog.posts.translation.client import Languages, ServiceAway, ServiceRefused, TranslationError
from microblog.posts.translation.models import MAX_TRANSLATION
from microblog.validators import is_storable, normalize_newlines

_log = logging.getLogger(__name__)

MAX_ANSWER = 256 * 1024  # bytes
CONNECTIONS = 10  # kept open for the next question
CHUNK = 8192  # bytes
# Seconds for which its languages are taken to be the same; and if it did not say, until it is asked again.
LANGUAGES_KEPT, LANGUAGES_MISSED = 3600.0, 60.0
LANGUAGES_TIMEOUT = 0.5  # seconds: a page waits for it, and can do without


class LibreTranslate:
    """The service at `url`, which may want an `api_key`, and has `timeout` seconds to answer."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._timeout = timeout
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS)
        self._languages: Languages | None = None
        self._ask_languages_at = time.monotonic()

    def can(self, source: str, target: str) -> bool:
        """As Translator.can(). Takes a second at most, and that once in a minute."""
        languages = self._known_languages()
        return languages is None or languages.pair(source, target) is not None

    def translate(self, text: str, source: str, target: str) -> str:
        """As Translator.translate(). Takes twice the timeout at most, where the answer comes in drops."""
        languages = self._known_languages()
        pair = languages.pair(source, target) if languages else (source, target)
        if pair is None:
            raise ServiceRefused("not between these languages")
        question = {"q": text, "source": pair[0], "target": pair[1], "format": "text"}
        if self._api_key:
            question["api_key"] = self._api_key
        return _translated_text(self._ask("POST", "/translate", self._timeout, json=question))

    def _known_languages(self) -> Languages | None:
        """Return the languages of the service; None until it has answered.

        Whoever comes first asks; others go by what was known before, and nobody waits for a service that is away twice.
        """
        if time.monotonic() >= self._ask_languages_at:
            self._ask_languages_at = time.monotonic() + LANGUAGES_MISSED
            try:
                answer = self._ask("GET", "/languages", min(self._timeout, LANGUAGES_TIMEOUT))
                self._languages = _languages(answer)
                self._ask_languages_at = time.monotonic() + LANGUAGES_KEPT
            except TranslationError as error:
                _log.warning("languages of the translation service not read: %s", error)
        return self._languages

    def _ask(self, method: str, path: str, timeout: float, **sent: Any) -> bytes:
        """The body of an answer with status 200. Nobody is followed elsewhere: the key is for this address alone.

        Raises TranslationError.
        """
        status, answer = self._exchange(method, path, timeout, sent)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServiceAway(f"status {status}")
        if status != HTTPStatus.OK:
            raise ServiceRefused(f"status {status}")
        return answer

    def _exchange(self, method: str, path: str, timeout: float, sent: dict[str, Any]) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        deadline = time.monotonic() + timeout
        try:
            response = self._pool.request(
                method,
                self._url + path,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
                **sent,
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
    return normalize_newlines(text).strip()


def _languages(answer: bytes) -> Languages:
    try:
        return Languages({str(one["code"]): [str(code) for code in one["targets"]] for one in orjson.loads(answer)})
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise ServiceRefused("an answer without languages") from None
