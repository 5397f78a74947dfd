"""An HTTP translation service with the API of LibreTranslate that can simulate faults."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from tests.support.servers import free_port

SPOKEN = ("en", "es", "ko", "ru")


class TranslationServer:
    """A server on a free port that responds with the text in `translations`, or with the reversed text.

    `questions` are the received requests. `answer` replaces the response by a status and a body. No response is sent
    while `gate` is cleared. `endless` makes the body endless. None of these applies to the list of `languages`, which
    maps the code of each language to the codes of its targets; `said_of_languages` replaces the body of that list.
    """

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.translations: dict[str, str] = {}
        self._server: ThreadingHTTPServer | None = None
        self.reset()

    def start(self) -> None:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.gate.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def reset(self) -> None:
        """Restore the initial state."""
        self.questions: list[dict[str, Any]] = []
        self.translations.clear()
        self.languages = {one: [other for other in SPOKEN if other != one] for one in SPOKEN}
        self.said_of_languages: bytes | None = None
        self.asked_for_languages = 0
        self.answer: tuple[int, bytes] | None = None
        self.endless = False
        self.gate = threading.Event()
        self.gate.set()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Accept requests without responding during the block."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def list_languages(self) -> bytes:
        """Return the response body for a request for the languages."""
        self.asked_for_languages += 1
        listed = [{"code": code, "name": code, "targets": targets} for code, targets in self.languages.items()]
        return self.said_of_languages or orjson.dumps(listed)

    def reply(self, request: dict[str, Any]) -> tuple[int, bytes]:
        """Return the status and body of the response to a translation request."""
        self.questions.append(request)
        self.gate.wait()
        if self.answer is not None:
            return self.answer
        text = self.translations.get(request["q"], request["q"][::-1])
        return 200, orjson.dumps({"translatedText": text})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service: TranslationServer) -> None:
        super().__init__(("127.0.0.1", int(service.url.rpartition(":")[2])), _Handler)
        self.service = service


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        body = self.server.service.list_languages()
        self.send_response(200 if self.path == "/languages" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        service = self.server.service
        request = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, body = service.reply(request) if self.path == "/translate" else (404, b"")
        # The client may have closed the connection.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if 300 <= status < 400:
                self.send_header("Location", f"{service.url}/translate")
            if service.endless:
                self.end_headers()
                while True:
                    self.wfile.write(b" " * 65536)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing: the requests are recorded in `questions`."""
