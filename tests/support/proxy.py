"""A TCP proxy for tests, whose connections can be cut off without a word, as if the host behind them were gone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from sqlalchemy.engine import make_url


class _Link:
    """A client's connection with one to the target. Once it is `cut_off`, what the client sends is dropped."""

    def __init__(self, client: socket.socket, target: socket.socket) -> None:
        self._client, self._target = client, target
        self._cut_off = False
        for pair in ((client, target), (target, client)):
            threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def cut_off(self) -> None:
        """Close the connection to the target, and leave that of the client open."""
        self._cut_off = True
        with contextlib.suppress(OSError):
            self._target.shutdown(socket.SHUT_RDWR)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._cut_off:
                    sink.sendall(data)
        if not self._cut_off or source is self._client:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class TcpProxy:
    """A proxy for a server on the port `target` of this machine; it listens on `port`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._silent: list[socket.socket] | None = None  # the clients that connected during an outage
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def host_gone(self) -> Iterator[None]:
        """Cut off all connections for ever, and during the block also new ones.

        Clients that still wait for a connection after the block get one, as from a host that takes over the address.
        """
        with self._lock:
            self._silent = []
            for link in self._links:
                link.cut_off()
            self._links.clear()
        yield
        with self._lock:
            waiting, self._silent = self._silent, None
            for client in waiting:
                self._connect(client)

    def through(self, url: str) -> str:
        """Return the URL of a database for a client of this proxy."""
        return make_url(url).set(port=self.port).render_as_string(hide_password=False)

    def close(self) -> None:
        """Stop listening and cut off all connections."""
        self._server.close()
        for link in self._links:
            link.cut_off()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._server.accept()
                with self._lock:
                    if self._silent is not None:
                        self._silent.append(client)
                    else:
                        self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        self._links.append(_Link(client, socket.create_connection(("127.0.0.1", self._target))))
