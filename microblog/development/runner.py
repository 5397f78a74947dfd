"""`make run`: start everything on one machine until Ctrl-C.

Redis and the mail server start first, then migrations and demo data, then the programs of the Procfile. They stop in
reverse order, so that the worker can release its tasks while Redis is running.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from honcho.environ import parse_procfile

from config import ROOT, load_settings
from microblog.development.console import GOOD, Console
from microblog.development.environment import HOST, compose, share
from microblog.development.process_manager import Failure, ProcessManager, Program, StopRequest
from microblog.development.servers import free_port, redis_answers, redis_command, smtp_answers, web_answers

# Seconds. The two grace periods and a probe (servers.PROBE_TIMEOUT) of a hanging program add up to less than ten.
BACKING_GRACE = 1.5
APPS_GRACE = 6.0
REDIS_START_TIMEOUT = 30.0
START_TIMEOUT = 120.0

# Run in this order before the programs of the Procfile; both are idempotent.
STEPS = (Program("migrations", "flask db upgrade"), Program("demo data", "flask demo"))


def main() -> int:
    """Run until a stop is requested (exit code 0) or a program fails (exit code 1, with a sentence on stderr)."""
    try:
        port = _port(os.environ.get("PORT") or "8000")
        instance = Path(os.environ.get("INSTANCE_PATH") or ROOT / "instance").resolve()
        with _locked(instance):
            _perform(_plan(port, instance), instance)
    except StopRequest:
        pass
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True)
class _Plan:
    """The programs to run; `apps` need the services in `backing` as long as they run."""

    port: int
    mail_port: int
    environment: dict[str, str]
    redis: tuple[str, dict[str, Any]]  # the arguments of redis_answers()
    backing: list[Program]
    apps: list[Program]


def _plan(port: int, instance: Path) -> _Plan:
    """Return the programs to run, and write their environment to a file. Raises config.ConfigError for bad settings."""
    mail_port = free_port()
    backing = [_mailbox(instance / "mail", mail_port)]
    redis_url = os.environ.get("REDIS_URL")
    if not redis_url:
        redis_port = free_port()
        redis_url = f"redis://{HOST}:{redis_port}/0"
        # Its warnings concern the settings of the machine, such as vm.overcommit_memory.
        backing.append(Program("redis", shlex.join(redis_command(redis_port)), quiet=True))
    environment = compose(os.environ, port, redis_url, mail_port)
    share(environment, instance / "dev.env")
    # Validate the settings here, before any program starts.
    os.environ.clear()
    os.environ.update(environment)
    settings = load_settings()
    redis = settings["REDIS_URL"], settings["REDIS_TLS"] | settings["REDIS_SENTINEL"]
    return _Plan(port, mail_port, environment, redis, backing, _procfile(ROOT / "Procfile"))


def _perform(plan: _Plan, instance: Path) -> NoReturn:
    console = Console(program.name for program in (*plan.backing, *STEPS, *plan.apps))
    try:
        with ProcessManager(ROOT, plan.environment, console, instance) as manager:
            manager.start(*plan.backing, grace=BACKING_GRACE)
            manager.wait_until(partial(redis_answers, *plan.redis), "Redis", REDIS_START_TIMEOUT)
            for step in STEPS:
                manager.run(step, grace=BACKING_GRACE)
            manager.start(*plan.apps, grace=APPS_GRACE)
            manager.wait_until(partial(web_answers, plan.port, "/readyz"), "The web server's /readyz", START_TIMEOUT)
            manager.wait_until(partial(smtp_answers, plan.mail_port), "The mailbox", START_TIMEOUT)
            site = plan.environment["PUBLIC_URL"]
            console.say(f"Microblog is ready: {site} (sign in as demo, password demo; Ctrl-C ends it)", colour=GOOD)
            manager.watch()
    finally:
        console.close()


def _port(text: str) -> int:
    """Return the web server's port. Raises Failure if it is invalid or in use."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise Failure(f"PORT: {text!r} is not a number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError as error:
            raise Failure(
                f"Port {text} of {HOST} cannot be used ({error.strerror}); choose another, as in `make run PORT=8001`."
            ) from None
    return int(text)


@contextmanager
def _locked(instance: Path) -> Iterator[None]:
    """Lock the folder, since two of these would use the same database and mailbox. Raises Failure if it is locked."""
    instance.mkdir(parents=True, exist_ok=True)
    with (instance / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"Another `make run` is running in {instance}.") from None
        yield


def _mailbox(folder: Path, port: int) -> Program:
    module = [sys.executable, "-m", "microblog.development.smtp_server"]
    return Program("mail", shlex.join([*module, "--port", str(port), "--maildir", str(folder)]))


def _procfile(file: Path) -> list[Program]:
    processes = parse_procfile(file.read_text()).processes
    # SIGQUIT makes gunicorn and a Celery worker end quickly but cleanly.
    return [Program(name, command, second_signal=signal.SIGQUIT) for name, command in processes.items()]


if __name__ == "__main__":
    sys.exit(main())
