"""All programs, as in production, and a supervisor that restarts them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flask import Flask

from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import web_answers
from tests.chaos.queue_watch import QueueWatch
from tests.support import app_factory
from tests.support.proxy import TcpProxy
from tests.support.servers import REDIS_PREFIX, Postgres, RedisServer, free_port, wait_for
from tests.support.smtp import SmtpServer

BEAT = ["celery", "-A", "celery_app", "beat"]
RESTART_PAUSE = 0.3  # seconds between two checks of the supervisor
START_TIMEOUT = 120.0  # seconds within which the system must be ready, on a busy machine
STOP_TIMEOUT = 45.0  # seconds that a program has to stop, longer than WORKER_STOP_TIMEOUT


class Supervisor:
    """A thread that restarts programs that have ended."""

    def __init__(self) -> None:
        self._programs: list[ManagedProcess] = []
        self._lock = threading.Lock()  # held while programs are restarted
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, program: ManagedProcess) -> ManagedProcess:
        """Watch a program, and return it."""
        self._programs.append(program)
        return program

    def stop_program(self, program: ManagedProcess) -> None:
        """Send a program SIGTERM and do not restart it. Raises subprocess.TimeoutExpired if it does not end."""
        with self._lock:
            self._programs.remove(program)
        program.terminate()
        try:
            program.wait(STOP_TIMEOUT)
        finally:
            program.kill()

    def stop(self) -> None:
        """Stop the thread, and kill all programs."""
        self._stopping.set()
        self._thread.join()
        for program in self._programs:
            program.kill()

    def all_running(self) -> bool:
        return all(program.poll() is None for program in self._programs)

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_PAUSE):
            with self._lock:
                for program in list(self._programs):
                    if program.poll() is not None:
                        program.restart()


class Deployment:
    """A web server, two workers, beat, Redis, an SMTP server and a database, in one folder."""

    def __init__(self, folder: Path, database: str, postgres: Postgres | None) -> None:
        self.folder = folder
        self.postgres = postgres
        self.smtp = SmtpServer()
        self.redis_folder = folder / "redis"
        self.redis = RedisServer(self.redis_folder, fsync="everysec", log=folder / "redis.log")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_name = f"chaos_{folder.name.replace('-', '_')}"
        self.sqlite = folder / "microblog.db" if database == "sqlite" else None
        self.proxy: TcpProxy | None = None
        url = self._url = f"sqlite:///{self.sqlite}"
        if postgres is not None and self.sqlite is None:
            self.proxy = TcpProxy(postgres.port)
            self._url = postgres.create(self.database_name)
            url = self.proxy.through(postgres.add_owner(self.database_name))
        self.environment = self._settings(url)

    def _settings(self, database_url: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        return inherited | {
            "MICROBLOG_ENV": "testing",
            "INSTANCE_PATH": str(self.folder / "instance"),
            "DATABASE_URL": database_url,
            "DATABASE_STATEMENT_TIMEOUT": "2",
            "REDIS_URL": self.redis.url,
            "REDIS_PREFIX": REDIS_PREFIX,
            "REDIS_TIMEOUT": "1",
            "MAIL_PORT": str(self.smtp.port),
            "MAIL_TIMEOUT": "3",
            "RATELIMIT_ENABLED": "false",
            "EXPORT_ATTACHMENT_LIMIT": "100000",  # so that some archives are mailed as a link
            # Short, so that leases expire and the periodic tasks run many times within a minute; but a lease is longer
            # than a process needs to connect to a database that has moved: the time limit above and 2 s.
            "TASK_LEASE": "8",
            "RECONCILE_INTERVAL": "1",
            "SWEEP_INTERVAL": "2",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }

    @contextlib.contextmanager
    def open(self) -> Iterator[Flask]:
        """Run the system during the block; yield the application, whose queries pass neither the proxy nor a limit."""
        with contextlib.ExitStack() as stack:
            if self.postgres is not None and self.sqlite is None:
                stack.callback(self.postgres.drop, self.database_name)
            if self.proxy is not None:
                stack.callback(self.proxy.close)
            self.redis.start()
            stack.callback(self.redis.stop)
            self.smtp.start()
            stack.callback(self.smtp.stop)
            environment = self.environment | {"LOG_LEVEL": "ERROR"}
            app_factory.migrate(environment, environment["DATABASE_URL"])
            environment |= {"DATABASE_URL": self._url, "DATABASE_STATEMENT_TIMEOUT": "60"}
            app = stack.enter_context(app_factory.application(environment))
            self.queue_watch = QueueWatch(self.redis.client)
            stack.callback(self.queue_watch.stop)
            self.supervisor = Supervisor()
            stack.callback(self.supervisor.stop)
            self._start()
            ready = partial(web_answers, self.port, "/readyz", timeout=10)
            wait_for(ready, timeout=START_TIMEOUT, what=f"the system is ready, see {self.folder}")
            yield app

    @contextlib.contextmanager
    def worker(self, name: str, app: str = "celery_app", **settings: str) -> Iterator[None]:
        """Run another worker, with these additional settings, until the end of the block."""
        program = self._worker(name, app, **settings)
        log = self.folder / f"{name}.log"
        try:
            wait_for(lambda: f"{name}@chaos ready" in log.read_text(), timeout=START_TIMEOUT, what=f"{name} is ready")
            yield
        finally:
            self.supervisor.stop_program(program)

    @contextlib.contextmanager
    def replaced_beat(self, **settings: str) -> Iterator[None]:
        """Replace beat during the block by one with these additional settings."""
        self.supervisor.stop_program(self.beat)
        other = self._program("beat", BEAT, **settings)
        try:
            yield
        finally:
            self.supervisor.stop_program(other)
            self.supervisor.add(self.beat)  # which it starts again

    def repair(self) -> None:
        """End every fault, and wait until all programs have been restarted."""
        self.smtp.behave()
        for worker in self.workers:
            worker.signal_group(signal.SIGCONT)
        wait_for(self.supervisor.all_running, what="all programs have been restarted")

    def _start(self) -> None:
        self.web = self._program("web", ["gunicorn", "-c", "gunicorn.conf.py", "microblog:create_app()"])
        self.workers = [self._worker(name, "celery_app") for name in ("worker1", "worker2")]
        self.beat = self._program("beat", BEAT)

    def _worker(self, name: str, app: str, **settings: str) -> ManagedProcess:
        command = ["celery", "-A", app, "worker", "--concurrency", "2", "--loglevel", "INFO", "-n", f"{name}@chaos"]
        return self._program(name, command, **settings)

    def _program(self, name: str, command: list[str], **settings: str) -> ManagedProcess:
        command, log = [sys.executable, "-m", *command], self.folder / f"{name}.log"
        return self.supervisor.add(ManagedProcess(command, self.environment | settings, stdout=log))
