"""Check that all web servers and workers use the same storages: a path may be a different folder on each machine.

Each storage has a file with a random id, which the first program creates. Every web server and worker reads it when it
starts and every few seconds after that, and stores in Redis what it has found.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from socket import gethostname
from typing import Any

from flask import Flask
from gevent import get_hub
from gevent.monkey import is_module_patched
from redis.exceptions import RedisError

from microblog.database import lock_against_fork
from microblog.extensions import SiteRedis
from microblog.monitoring.probes import ConcurrentProbes
from microblog.storage import REFUSED, FolderStorage, Storage, open_storage

logger = logging.getLogger(__name__)

SETTINGS = ("EXPORT_STORAGE_URL", "IMPORT_STORAGE_URL")
ID_FILE = "storage-id"
PROBE_TIMEOUT = 5.0  # seconds; gunicorn ends a process that takes 30 to start
LOCK_TIMEOUT = 60  # seconds that the creation of an id may take
REPORTS_KEY = "storages"  # a sorted set: programs and what they have found, by time
REPORT_INTERVAL = 30.0  # seconds
REPORT_LIFETIME = 90.0  # seconds after which a program that no longer reports is ignored
WEB = "web server "  # the names of web servers begin with it, those of workers cannot

Found = Mapping[str, str]  # ``{"id": …}`` or ``{"error": …}``

_fork_lock = lock_against_fork()


def programs_without_storage(app: Flask) -> dict[str, str]:
    """Return the web servers and workers that do not use the same storages as most others, with a reason each.

    Raises redis.exceptions.RedisError.
    """
    client: SiteRedis = app.extensions["redis"]
    oldest = client.now() - REPORT_LIFETIME
    members: Any = client.zrangebyscore(client.key(REPORTS_KEY), oldest, "+inf")
    reports: dict[str, dict[str, Found]] = dict(map(json.loads, members))
    programs = sorted(reports, key=lambda program: (program.startswith(WEB), program))
    reasons = defaultdict(list)
    for setting in SETTINGS:
        found = {program: reports[program][setting] for program in programs}
        for program, reason in _find_differences(found).items():
            reasons[program].append(f"{setting} {reason}.")
    return {program: " ".join(sentences) for program, sentences in reasons.items()}


def check_storages(app: Flask) -> None:
    """Raise SystemExit, with a sentence that names the setting, if a storage refuses to be used.

    One that is only unavailable does not prevent the start of a program.
    """
    for setting, future in _probe(ConcurrentProbes(app), app).items():
        error = future.exception(timeout=0) if future.done() else None
        if isinstance(error, REFUSED):
            raise SystemExit(f"{setting}: the storage cannot be used ({error}).")


class StorageReporter:
    """Thread that reports what `program` finds in its storages, and logs if it does not use the same as others."""

    def __init__(self, app: Flask, program: str) -> None:
        self._app = app
        self._program = program
        self._probes = ConcurrentProbes(app)
        self._logged: str | None = None

    def start(self) -> None:
        """Start the thread, which ends with the process."""
        threading.Thread(target=self._run, name="storage-reporter", daemon=True).start()

    def report(self) -> None:
        """Report once. Raises redis.exceptions.RedisError."""
        found = {setting: _outcome(future) for setting, future in _probe(self._probes, self._app).items()}
        with _fork_lock:
            client: SiteRedis = self._app.extensions["redis"]
            key, now = client.key(REPORTS_KEY), client.now()
            with client.pipeline() as pipe:
                pipe.zadd(key, {json.dumps([self._program, found], sort_keys=True): now})
                pipe.zremrangebyscore(key, "-inf", now - REPORT_LIFETIME)
                pipe.execute()
            reason = programs_without_storage(self._app).get(self._program)
        if reason not in (None, self._logged):
            logger.warning("%s: %s", self._program, reason)
        self._logged = reason

    def _run(self) -> None:
        while True:
            try:
                self.report()
            except RedisError as error:
                logger.warning("Redis is unavailable; the storages are compared later: %s", error)
            except Exception:  # the thread must not end
                logger.exception("the storages cannot be compared; the next attempt follows")
            time.sleep(REPORT_INTERVAL)


def start_in_web_server(app: Flask) -> None:
    """Check the storages and start the reports of a web server. Raises SystemExit as check_storages() does."""
    check_storages(app)
    StorageReporter(app, WEB + gethostname()).start()


def _find_differences(found: Mapping[str, Found]) -> dict[str, str]:
    """Return the programs that cannot use a storage, or use another than most, with the end of a sentence each.

    Of two storages with as many programs, that of the first program is the right one.
    """
    sharing = defaultdict(list)
    for program, each in found.items():
        if "id" in each:
            sharing[each["id"]].append(program)
    most = max(sharing.values(), key=len, default=[])
    return {
        program: f"is another storage than that of {most[0]}" if "id" in each else f"cannot be used: {each['error']}"
        for program, each in found.items()
        if program not in most
    }


def _probe(probes: ConcurrentProbes, app: Flask) -> dict[str, Future[str]]:
    return probes.run({setting: partial(_id_of, app, setting) for setting in SETTINGS}, PROBE_TIMEOUT)


def _outcome(future: Future[str]) -> Found:
    try:
        return {"id": future.result(timeout=0)}
    except Exception as error:
        return {"error": str(error) or f"no answer within {PROBE_TIMEOUT:.0f} seconds"}


def _id_of(app: Flask, setting: str) -> str:
    """Return the id of a storage, after creating it if it has none. Raises OSError and RedisError."""
    storage = open_storage(app.config[setting], quick=True)
    if not _exists(storage):
        client: SiteRedis = app.extensions["redis"]
        lock = client.lock(client.key(f"{REPORTS_KEY}:lock"), timeout=LOCK_TIMEOUT)
        with lock:  # programs may start at the same time
            if not storage.exists(ID_FILE):
                storage.delete(ID_FILE)  # incomplete, if a program was killed
                with storage.new(ID_FILE) as file:
                    file.write([uuid.uuid4().hex.encode()])
    return b"".join(storage.read_chunks(ID_FILE)).decode(errors="replace")


def _exists(storage: Storage) -> bool:
    """Return whether a storage has an id. For a folder, the call runs in a thread of the operating system.

    One that hangs would otherwise stop all greenlets of a web process.
    """
    if isinstance(storage, FolderStorage) and is_module_patched("threading"):
        return bool(get_hub().threadpool.apply(storage.exists, (ID_FILE,)))
    return storage.exists(ID_FILE)
