"""Client of LibreTranslate's HTTP API: ``POST /translate`` and ``GET /languages``."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from flask import current_app

from microblog.posts.models import MAX_TRANSLATION
from microblog.validators import is_storable, normalize_newlines

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

logger = logging.getLogger(__name__)

MAX_RESPONSE = 256 * 1024  # bytes
CONNECTIONS = 10  # kept open for later requests
CHUNK = 8192  # bytes
# Seconds for which the languages are cached, and seconds until a failed request for them is repeated.
LANGUAGES_CACHE_TIME, LANGUAGES_RETRY_DELAY = 3600.0, 60.0
LANGUAGES_TIMEOUT = 0.5  # seconds; a page waits for the languages, but does not need them
# Codes that a service may use in place of a tag: the detector reports Norwegian or Chinese without the variety.
_OTHER_NAMES = {"no": ("nb", "nn"), "pt": ("pb",), "zh": ("zh-Hans",)}


@dataclass(frozen=True)
class Languages:
    """The languages of a service: `targets` maps each source language to its target languages, all by their codes."""

    targets: Mapping[str, Collection[str]]

    def pair(self, source: str, target: str) -> tuple[str, str] | None:
        """Return the service's codes for `source` and `target` (both BCP 47); None if it cannot translate them."""
        source_code = _code_of(source, self.targets)
        if source_code is None:
            return None
        target_code = _code_of(target, self.targets[source_code])
        return None if target_code is None else (source_code, target_code)


def _code_of(tag: str, codes: Collection[str]) -> str | None:
    """Return the code for `tag` among `codes`: the tag itself, another name of it, or a variety of it; else None."""
    same = (name for name in (tag, *_OTHER_NAMES.get(tag, ())) if name in codes)
    varieties = (code for code in codes if code.partition("-")[0] == tag.partition("-")[0])
    return next(same, None) or next(varieties, None)


class TranslationError(Exception):
    """Raised if there is no translation. The message is for the log and contains nothing that was sent."""


class TranslationUnavailable(TranslationError):
    """Raised if the service is unreachable, too slow or overloaded. A later request may succeed."""


class TranslationRejected(TranslationError):
    """Raised if the service responds without a translation. A later request is not expected to succeed."""


def current_translator() -> LibreTranslate:
    """Return the current app's translator, which has its own connections. Requires ``TRANSLATE_URL``."""
    translator: LibreTranslate | None = current_app.extensions.get("translator")
    if translator is None:
        config = current_app.config
        translator = LibreTranslate(config["TRANSLATE_URL"], config["TRANSLATE_API_KEY"], config["TRANSLATE_TIMEOUT"])
        current_app.extensions["translator"] = translator
    return translator


class LibreTranslate:
    """The service at `url`, with an optional `api_key` and a `timeout` in seconds."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        from urllib3 import PoolManager  # on first use: most processes need no HTTP client

        self._url = url.rstrip("/")
        self._api_key = api_key
        self._timeout = timeout
        self._pool = PoolManager(maxsize=CONNECTIONS)
        self._languages: Languages | None = None
        self._request_languages_at = time.monotonic()

    def can(self, source: str, target: str) -> bool:
        """Return whether the service translates from `source` into `target` (both BCP 47); True if unknown.

        Takes at most one second, at most once a minute.
        """
        languages = self._cached_languages()
        return languages is None or languages.pair(source, target) is not None

    def translate(self, text: str, source: str, target: str) -> str:
        """Return the translation of `text` from `source` into `target` (both BCP 47), as plain text.

        Takes at most twice the timeout, if the response arrives slowly. Raises TranslationError.
        """
        languages = self._cached_languages()
        pair = languages.pair(source, target) if languages else (source, target)
        if pair is None:
            raise TranslationRejected("this pair of languages is not supported")
        payload = {"q": text, "source": pair[0], "target": pair[1], "format": "text"}
        if self._api_key:
            payload["api_key"] = self._api_key
        return _translated_text(self._request("POST", "/translate", self._timeout, json=payload))

    def _cached_languages(self) -> Languages | None:
        """Return the languages of the service; None until it has responded.

        Only one caller requests them; others use the previous value. A failed request is not repeated for
        LANGUAGES_RETRY_DELAY seconds, so that callers do not wait for an unavailable service again.
        """
        if time.monotonic() >= self._request_languages_at:
            self._request_languages_at = time.monotonic() + LANGUAGES_RETRY_DELAY
            try:
                body = self._request("GET", "/languages", min(self._timeout, LANGUAGES_TIMEOUT))
                self._languages = _languages(body)
                self._request_languages_at = time.monotonic() + LANGUAGES_CACHE_TIME
            except TranslationError as error:
                logger.warning("cannot read the languages of the translation service; retrying later: %s", error)
        return self._languages

    def _request(self, method: str, path: str, timeout: float, **options: Any) -> bytes:
        """Return the body of a response with status 200. Redirects are not followed: the key is only for this URL.

        Raises TranslationError.
        """
        status, body = self._exchange(method, path, timeout, options)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise TranslationUnavailable(f"status {status}")
        if status != HTTPStatus.OK:
            raise TranslationRejected(f"status {status}")
        return body

    def _exchange(self, method: str, path: str, timeout: float, options: dict[str, Any]) -> tuple[int, bytes]:
        """Return the status and the body of the response."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError, TimeoutError

        deadline = time.monotonic() + timeout
        try:
            response = self._pool.request(
                method,
                self._url + path,
                timeout=Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
                **options,
            )
            try:
                return response.status, _read(response, deadline)
            finally:
                # A complete response has released its connection already; an incomplete one must not be reused.
                response.close()
        except TimeoutError:
            raise TranslationUnavailable("no response within the timeout") from None
        except HTTPError as error:
            raise TranslationUnavailable(type(error).__name__) from None


def _read(response: BaseHTTPResponse, deadline: float) -> bytes:
    """Return the body. Raises TranslationError if it is too long or incomplete at `deadline` (monotonic clock)."""
    body = b""
    while chunk := response.read1(CHUNK, decode_content=False):
        body += chunk
        if len(body) > MAX_RESPONSE:
            raise TranslationRejected("the response is too long")
        if time.monotonic() > deadline:
            raise TranslationUnavailable("incomplete response within the timeout")
    return body


def _translated_text(body: bytes) -> str:
    try:
        text = orjson.loads(body)["translatedText"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise TranslationRejected("the response contains no translation") from None
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TRANSLATION or not is_storable(text):
        raise TranslationRejected("the translation is empty, too long or cannot be stored")
    return normalize_newlines(text).strip()


def _languages(body: bytes) -> Languages:
    try:
        return Languages({str(item["code"]): [str(code) for code in item["targets"]] for item in orjson.loads(body)})
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise TranslationRejected("the response contains no languages") from None
