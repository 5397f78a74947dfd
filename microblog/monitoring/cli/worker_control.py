"""``flask tasks worker NAME shutdown|restart-pool|grow|shrink|autoscale|consume|stop-consuming``."""

from __future__ import annotations

from typing import Any

import click
from flask import current_app

from microblog.celeryconfig import pause
from microblog.commands import as_json
from microblog.monitoring import remote, workers
from microblog.monitoring.cli import complete
from microblog.monitoring.cli.answers import print_said, refuse_silent
from microblog.monitoring.cli.control import queue_argument
from microblog.monitoring.cli.group import worker_timeout
from microblog.monitoring.cli.workers import worker
from microblog.monitoring.remote import Said
from microblog.monitoring.workers import Answers

UNTIL_RESTART = "This lasts until the worker is restarted; {} of celery worker says what it starts with."

processes = click.argument("n", metavar="[N]", type=click.IntRange(min=1), default=1)


@worker.command("shutdown")
@worker_timeout
@as_json
@click.pass_context
def shutdown(context: click.Context, timeout: float, as_json: bool) -> None:
    """End the worker as SIGTERM does: what it runs may end, for a while; the rest goes back to the queue.

    \b
    Example:
      flask tasks worker celery@house shutdown
    """
    wait = current_app.config["WORKER_STOP_TIMEOUT"]
    _tell(context, "end", {}, f"ends; what it runs it may finish for {wait:g} s, then it hands it back.")


@worker.command("restart-pool")
@worker_timeout
@as_json
@click.pass_context
def restart_pool(context: click.Context, timeout: float, as_json: bool) -> None:
    """Replace each process of the worker by a new one, once it has ended what it runs.

    \b
    Example:
      flask tasks worker celery@house restart-pool
    """
    _tell(context, "replace_processes", {}, "replaces its processes, each once it has ended what it runs.")


@worker.command("grow")
@processes
@worker_timeout
@as_json
@click.pass_context
def grow(context: click.Context, n: int, timeout: float, as_json: bool) -> None:
    """Add N processes to the worker.

    \b
    Example:
      flask tasks worker celery@house grow 2
    """
    note = UNTIL_RESTART.format("--concurrency")
    _tell(context, "pool_grow", {"n": n}, f"adds {n} to its processes, within a few seconds.", note)


@worker.command("shrink")
@processes
@worker_timeout
@as_json
@click.pass_context
def shrink(context: click.Context, n: int, timeout: float, as_json: bool) -> None:
    """End N processes of the worker that have nothing to do.

    \b
    Example:
      flask tasks worker celery@house shrink
    """
    note = UNTIL_RESTART.format("--concurrency")
    _tell(context, "end_processes", {"n": n}, f"ends {n} of its processes.", note)


@worker.command("autoscale")
@click.argument("most", metavar="MAX", type=click.IntRange(min=1))
@click.argument("least", metavar="MIN", type=click.IntRange(min=1))
@worker_timeout
@as_json
@click.pass_context
def autoscale(context: click.Context, most: int, least: int, timeout: float, as_json: bool) -> None:
    """Let the worker have at most MAX processes, and MIN when there is little to do.

    Only for a worker that was started with --autoscale.

    \b
    Example:
      flask tasks worker celery@house autoscale 8 2
    """
    if least > most:
        raise click.BadParameter("MIN must not be above MAX.", param_hint="MIN")
    note = UNTIL_RESTART.format("--autoscale")
    _tell(context, "autoscale", {"max": most, "min": least}, f"has {least} to {most} processes from now on.", note)


@worker.command("consume")
@queue_argument
@worker_timeout
@as_json
@click.pass_context
def consume(context: click.Context, queue: str, timeout: float, as_json: bool) -> None:
    """Have the worker take from a queue, too.

    \b
    Example:
      flask tasks worker celery@house consume mail
    """
    _refuse_paused(context, queue)
    note = UNTIL_RESTART.format("--queues")
    _tell(context, "add_consumer", {"queue": queue}, f"takes from {queue} from now on.", note)


@worker.command("stop-consuming")
@click.argument("queue", shell_complete=complete.queues)
@worker_timeout
@as_json
@click.pass_context
def stop_consuming(context: click.Context, queue: str, timeout: float, as_json: bool) -> None:
    """Have the worker take nothing more from a queue. To stop all workers, and for good, use flask tasks pause.

    \b
    Example:
      flask tasks worker celery@house stop-consuming exports
    """
    _refuse_paused(context, queue)
    if queue not in _ask(context, "active_queues").up[_name(context)]["queues"]:
        _refuse(context, f"does not take from {queue}.")
    note = UNTIL_RESTART.format("--queues")
    _tell(context, "cancel_consumer", {"queue": queue}, f"takes nothing more from {queue}.", note)


def _tell(context: click.Context, command: str, arguments: dict[str, Any], done: str, note: str = "") -> None:
    """Have the worker do something, and tell what became of it."""
    name, timeout = _name(context), context.params["timeout"]
    said = remote.tell(command, arguments, timeout, done=done, only=[name])
    if not said[0].answered:
        refuse_silent(context, name)
    print_said(context, said, context.params["as_json"], note)


def _ask(context: click.Context, question: str) -> Answers:
    """Ask the worker something; the answers hold its own, since otherwise this ends the command."""
    answers = workers.ask_about({question: {}}, context.params["timeout"], [_name(context)])
    if _name(context) not in answers.up:
        refuse_silent(context, _name(context))
    return answers


def _refuse(context: click.Context, sentence: str) -> None:
    print_said(context, [Said(_name(context), False, sentence)], context.params["as_json"])


def _refuse_paused(context: click.Context, queue: str) -> None:
    if queue in pause.paused():
        _refuse(context, f"takes nothing from {queue}, which is paused; flask tasks resume {queue} comes first.")


def _name(context: click.Context) -> str:
    """The worker that the command is about, which the group before it was given."""
    group: dict[str, Any] = context.parent.params if context.parent else {}
    return str(group["name"])
