"""All programs, as in production, and a supervisor that restarts them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flask import Flask

from microblog.development.servers import redis_answers, redis_binary
from tests.support import app_factory
from tests.support.programs import ROOT
from tests.support.servers import Postgres, RedisServer, free_port, wait_for
from tests.support.smtp import SmtpServer

RESTART_PAUSE = 0.3  # seconds between two checks of the supervisor
BOOT = 120.0  # seconds within which the system must be ready, on a busy machine


class LastingRedis(RedisServer):
    """A redis-server whose data survives SIGKILL, unless it is deleted."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        command = [redis_binary(), *address, "--appendonly", "yes", "--save", "", "--loglevel", "warning"]
        with (self.folder.parent / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: redis_answers(self.url), timeout=30, what="redis-server answers")

    def forget(self) -> None:
        """Delete the data; the server must be stopped."""
        shutil.rmtree(self.folder)


class Program:
    """One program under the supervisor, in its own process group together with its children."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *command]
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def children(self) -> list[int]:
        """Return the ids of its child processes."""
        with contextlib.suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def signal(self, number: int) -> None:
        """Send a signal to the process group; no error if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self) -> None:
        """Kill (SIGKILL) the process group."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()


class Supervisor:
    """Restarts programs that have ended."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        for program in self._programs:
            program.start()
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        for program in self._programs:
            program.end()

    def all_running(self) -> bool:
        return all(program.running for program in self._programs)

    def _watch(self) -> None:
        while not self._ending.wait(RESTART_PAUSE):
            for program in self._programs:
                if not program.running:
                    program.end()  # kill the remaining processes of its group
                    program.start()


class Deployment:
    """A web server, two workers, beat, Redis, an SMTP server and a database, in one folder."""

    def __init__(self, folder: Path, database: str, postgres: Postgres | None) -> None:
        self.folder = folder
        self.postgres = postgres
        self.smtp = SmtpServer()
        self.redis = LastingRedis(folder / "redis")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_name = f"chaos_{folder.name.replace('-', '_')}"
        self.sqlite = folder / "microblog.db" if database == "sqlite" else None
        url = f"sqlite:///{self.sqlite}"
        if postgres is not None and self.sqlite is None:
            url = postgres.create(self.database_name)
        self.environment = self._settings(url)
        worker = ["celery", "-A", "celery_app", "worker", "--concurrency", "2", "--loglevel", "INFO", "-n"]
        self.web = self._program("web", ["gunicorn", "-c", "gunicorn.conf.py", "microblog:create_app()"])
        self.workers = [self._program(name, [*worker, f"{name}@chaos"]) for name in ("worker1", "worker2")]
        self.beat = self._program("beat", ["celery", "-A", "celery_app", "beat"])
        self.supervisor = Supervisor([self.web, *self.workers, self.beat])

    def _settings(self, database_url: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        return inherited | {
            "MICROBLOG_ENV": "testing",
            "INSTANCE_PATH": str(self.folder / "instance"),
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis.url,
            "REDIS_TIMEOUT": "1",
            "MAIL_PORT": str(self.smtp.port),
            "MAIL_TIMEOUT": "3",
            "RATELIMIT_ENABLED": "false",
            "EXPORT_ATTACHMENT_LIMIT": "100000",  # so that some archives are mailed as a link
            # Short, so that leases expire and the periodic tasks run many times within a minute.
            "TASK_LEASE": "4",
            "RECONCILE_INTERVAL": "1",
            "SWEEP_INTERVAL": "2",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }

    def _program(self, name: str, command: list[str]) -> Program:
        return Program(name, command, self.environment, self.folder / f"{name}.log")

    @contextlib.contextmanager
    def open(self) -> Iterator[Flask]:
        """Run the system during the block; yield the application, for queries."""
        with contextlib.ExitStack() as stack:
            if self.postgres is not None and self.sqlite is None:
                stack.callback(self.postgres.drop, self.database_name)
            self.redis.start()
            stack.callback(self.redis.stop)
            self.smtp.start()
            stack.callback(self.smtp.stop)
            environment = self.environment | {"LOG_LEVEL": "ERROR"}
            app_factory.migrate(environment, environment["DATABASE_URL"])
            app = stack.enter_context(app_factory.application(environment))
            stack.callback(self.supervisor.end)
            self.supervisor.start()
            wait_for(self._ready, timeout=BOOT, what=f"the system is ready, see {self.folder}")
            yield app

    def heal(self) -> float:
        """End every fault, wait until all programs have been restarted, and return the time."""
        self.smtp.behave()
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
        wait_for(self.supervisor.all_running, what="all programs have been restarted")
        return time.time()

    def _ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
        return False
