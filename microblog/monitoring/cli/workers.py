"""``flask tasks workers``, ``worker NAME`` and its commands, ``active`` to ``registered``, ``queues``, ``schedule``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from microblog.cli import as_json, print_json
from microblog.monitoring import output
from microblog.monitoring.cli import completion, tables
from microblog.monitoring.cli.common import (
    NOTHING_DONE,
    end_with,
    name_silent,
    print_said,
    refuse_silent,
    tasks,
    worker_timeout,
)
from microblog.monitoring.cli.queues import queue_argument
from microblog.monitoring.queues import is_beat_running, measure_queues, schedule_entries
from microblog.monitoring.workers import (
    REGISTERED,
    CommandReply,
    WorkerReplies,
    all_questions,
    query_workers,
    query_workers_about,
    registered_tasks,
    send_command,
    worker_tasks,
)
from microblog.taskqueue.queues import paused_queues


@tasks.command("workers")
@worker_timeout
@as_json
@click.pass_context
def list_workers(context: click.Context, timeout: float, as_json: bool) -> None:
    """List the workers, those that do not answer too.

    Exit code 1 if one of them does not answer, 3 if none does.

    \b
    Example:
      flask tasks workers --timeout 3
    """
    answers = query_workers(timeout)
    summaries = answers.summaries()
    if as_json:
        print_json([asdict(summary) for summary in summaries])
    elif summaries:
        tables.print_workers(summaries)
    end_with(context, answers)


class OfOneWorker(AppGroup):
    """A group whose own options may come after its argument, as in ``worker NAME --json``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Let options and arguments mix unless a command follows, to which the options behind it belong."""
        context.allow_interspersed_args = not any(arg in self.commands for arg in args)
        return super().parse_args(context, args)


@tasks.group("worker", cls=OfOneWorker, invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@click.argument("name", shell_complete=completion.workers)
@worker_timeout
@as_json
@click.pass_context
@with_appcontext
def worker(context: click.Context, name: str, timeout: float, as_json: bool) -> None:
    """Show all that a worker says of itself, or have it do something.

    \b
    Examples:
      flask tasks worker celery@house
      flask tasks worker celery@house grow 2
    """
    # The options of this command hold for the one behind it, too.
    context.default_map = {command: {"timeout": timeout, "as_json": as_json} for command in worker.commands}
    if context.invoked_subcommand is None:
        _show(context, name, timeout, as_json)


def _show(context: click.Context, name: str, timeout: float, as_json: bool) -> None:
    answers = query_workers_about(all_questions(), timeout, [name])
    if name not in answers.up:
        refuse_silent(context, name)
    summary, said = answers.summary(name), answers.up[name]
    held = {question: worker_tasks(answers, question) for question in ("active", "reserved", "scheduled")}
    if as_json:
        print_json(
            asdict(summary) | held | {key: said[key] for key in ("revoked", "registered")} | {"settings": said["conf"]}
        )
    else:
        tables.print_worker(summary, said, held)


@tasks.command("active")
@worker_timeout
@as_json
@click.pass_context
def active(context: click.Context, timeout: float, as_json: bool) -> None:
    """List the tasks that workers are running.

    \b
    Example: the processes that export
      flask tasks active --json | jq '.[] | select(.name == "export_posts") | .pid'
    """
    _list_tasks(context, "active", timeout, as_json)


@tasks.command("reserved")
@worker_timeout
@as_json
@click.pass_context
def reserved(context: click.Context, timeout: float, as_json: bool) -> None:
    """List the tasks that workers have taken and not begun.

    \b
    Example:
      flask tasks reserved
    """
    _list_tasks(context, "reserved", timeout, as_json)


@tasks.command("scheduled")
@worker_timeout
@as_json
@click.pass_context
def scheduled(context: click.Context, timeout: float, as_json: bool) -> None:
    """List the tasks that workers keep until their time comes, such as those to be tried again.

    \b
    Example:
      flask tasks scheduled
    """
    _list_tasks(context, "scheduled", timeout, as_json)


def _list_tasks(context: click.Context, question: str, timeout: float, as_json: bool) -> None:
    answers = query_workers_about({question: {}}, timeout)
    listed = worker_tasks(answers, question)
    if as_json:
        print_json(listed)
    elif listed:
        tables.print_tasks(listed)
    elif answers.up:
        click.echo("There are no such tasks.", err=True)
    end_with(context, answers)


@tasks.command("revoked")
@worker_timeout
@as_json
@click.pass_context
def revoked(context: click.Context, timeout: float, as_json: bool) -> None:
    """List the ids that workers were told to drop, each with the workers that know.

    \b
    Example:
      flask tasks revoked
    """
    answers = query_workers_about({"revoked": {}}, timeout)
    knowing: dict[str, list[str]] = defaultdict(list)
    for name, said in answers.up.items():
        for task_id in said["revoked"]:
            knowing[task_id].append(name)
    if as_json:
        print_json([{"id": task_id, "workers": names} for task_id, names in sorted(knowing.items())])
    elif knowing:
        output.print_table(["ID", "WORKERS"], [[task_id, ",".join(knowing[task_id])] for task_id in sorted(knowing)])
    elif answers.up:
        click.echo("There are none.", err=True)
    end_with(context, answers)


@tasks.command("registered")
@worker_timeout
@as_json
@click.pass_context
def registered(context: click.Context, timeout: float, as_json: bool) -> None:
    """List the tasks that workers can run, with their limits, and which workers.

    After a deploy, two lines for one task tell that not all workers are of the same version.

    \b
    Example:
      flask tasks registered
    """
    answers = query_workers_about(REGISTERED, timeout)
    kinds = registered_tasks(answers)
    if as_json:
        print_json(kinds)
    elif kinds:
        tables.print_registered(kinds)
    end_with(context, answers)


@tasks.command("queues")
@worker_timeout
@as_json
def list_queues(timeout: float, as_json: bool) -> None:
    """List the queues: what waits in each, since when, and how many workers take from it.

    \b
    Example: stop a script if exports pile up
      test "$(flask tasks queues --json | jq '.[] | select(.name == "exports") | .length')" -lt 100
    """
    answers = query_workers(timeout)
    measured = measure_queues(answers if answers.up else None)
    if as_json:
        print_json([asdict(queue) for queue in measured])
    else:
        tables.print_queues(measured)
    name_silent(answers)


@tasks.command("schedule")
@as_json
@click.pass_context
def show_schedule(context: click.Context, as_json: bool) -> None:
    """List what beat sends: how often, when last, when next. Exit code 1 if no beat is there to do it.

    \b
    Example:
      flask tasks schedule
    """
    entries = schedule_entries()
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        tables.print_schedule(entries)
    if not is_beat_running():
        click.echo("No beat is running: nothing of this is sent.", err=True)
        context.exit(NOTHING_DONE)


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
@click.argument("queue", shell_complete=completion.queues)
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
    said = send_command(command, arguments, timeout, done=done, only=[name])
    if not said[0].answered:
        refuse_silent(context, name)
    print_said(context, said, context.params["as_json"], note)


def _ask(context: click.Context, question: str) -> WorkerReplies:
    """Ask the worker something; the answers hold its own, since otherwise this ends the command."""
    answers = query_workers_about({question: {}}, context.params["timeout"], [_name(context)])
    if _name(context) not in answers.up:
        refuse_silent(context, _name(context))
    return answers


def _refuse(context: click.Context, sentence: str) -> None:
    print_said(context, [CommandReply(_name(context), False, sentence)], context.params["as_json"])


def _refuse_paused(context: click.Context, queue: str) -> None:
    if queue in paused_queues():
        _refuse(context, f"takes nothing from {queue}, which is paused; flask tasks resume {queue} comes first.")


def _name(context: click.Context) -> str:
    """The worker that the command is about, which the group before it was given."""
    group: dict[str, Any] = context.parent.params if context.parent else {}
    return str(group["name"])
