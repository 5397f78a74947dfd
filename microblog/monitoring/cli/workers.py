"""``flask tasks workers``, ``worker NAME`` and its commands, ``active`` to ``registered``, ``queues``, ``schedule``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from microblog.cli import json_option, print_output
from microblog.monitoring import output
from microblog.monitoring.cli import completion, tables
from microblog.monitoring.cli.common import (
    EXIT_NOTHING_DONE,
    exit_for_replies,
    exit_for_silent_worker,
    print_command_replies,
    report_silent_workers,
    tasks,
    worker_timeout,
)
from microblog.monitoring.cli.queues import queue_argument
from microblog.monitoring.queues import measure_queues
from microblog.monitoring.schedule import is_beat_running, schedule_entries
from microblog.monitoring.workers import (
    REGISTERED,
    CommandReply,
    all_commands,
    query_workers,
    query_workers_with,
    registered_tasks,
    send_command,
    worker_tasks,
)
from microblog.taskqueue.queues import paused_queues


@tasks.command("workers")
@worker_timeout
@json_option
@click.pass_context
def list_workers(context: click.Context, timeout: float) -> None:
    """List the workers, including those that do not respond.

    Exit code 1 if a worker does not respond, 3 if none does.

    \b
    Example:
      flask tasks workers --timeout 3
    """
    replies = query_workers(timeout)
    print_output(replies.summaries(), tables.print_workers)
    exit_for_replies(context, replies)


class WorkerGroup(AppGroup):
    """A command group whose own options may follow its argument, as in ``worker NAME --json``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Allow options after arguments, unless a subcommand follows: then these are options of the subcommand."""
        context.allow_interspersed_args = not any(arg in self.commands for arg in args)
        return super().parse_args(context, args)


@tasks.group("worker", cls=WorkerGroup, invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@click.argument("name", shell_complete=completion.workers)
@worker_timeout
@json_option
@click.pass_context
@with_appcontext
def worker(context: click.Context, name: str, timeout: float) -> None:
    """Show the details of a worker, or send it a command.

    \b
    Examples:
      flask tasks worker celery@host
      flask tasks worker celery@host grow 2
    """
    # The timeout of this command is the default of its subcommands.
    context.default_map = {command: {"timeout": timeout} for command in worker.commands}
    if context.invoked_subcommand is None:
        _show(context, name, timeout)


def _show(context: click.Context, name: str, timeout: float) -> None:
    replies = query_workers_with(all_commands(), timeout, [name])
    if name not in replies.up:
        exit_for_silent_worker(context, name)
    summary, data = replies.summary(name), replies.up[name]
    held = {query: worker_tasks(replies, query) for query in ("active", "reserved", "scheduled")}
    settings = {key: data[key] for key in ("revoked", "registered")} | {"settings": data["conf"]}
    print_output(
        summary,
        lambda summary: tables.print_worker(summary, data, held),
        to_json=lambda summary: vars(summary) | held | settings,
    )


@tasks.command("active")
@worker_timeout
@json_option
@click.pass_context
def active(context: click.Context, timeout: float) -> None:
    """List the tasks that workers are running.

    \b
    Example: the processes that run exports
      flask tasks active --json | jq '.[] | select(.name == "export_posts") | .pid'
    """
    _list_tasks(context, "active", timeout)


@tasks.command("reserved")
@worker_timeout
@json_option
@click.pass_context
def reserved(context: click.Context, timeout: float) -> None:
    """List the tasks that workers have received but not started.

    \b
    Example:
      flask tasks reserved
    """
    _list_tasks(context, "reserved", timeout)


@tasks.command("scheduled")
@worker_timeout
@json_option
@click.pass_context
def scheduled(context: click.Context, timeout: float) -> None:
    """List the tasks that workers hold until their ETA. A retry of a job waits in the database.

    \b
    Example:
      flask tasks scheduled
    """
    _list_tasks(context, "scheduled", timeout)


def _list_tasks(context: click.Context, query: str, timeout: float) -> None:
    replies = query_workers_with({query: {}}, timeout)
    empty = "There are no such tasks." if replies.up else ""
    print_output(worker_tasks(replies, query), tables.print_tasks, empty=empty)
    exit_for_replies(context, replies)


@tasks.command("revoked")
@worker_timeout
@json_option
@click.pass_context
def revoked(context: click.Context, timeout: float) -> None:
    """List the ids of revoked tasks, each with the workers that have revoked it.

    \b
    Example:
      flask tasks revoked
    """
    replies = query_workers_with({"revoked": {}}, timeout)
    workers: dict[str, list[str]] = defaultdict(list)
    for name, reply in replies.up.items():
        for task_id in reply["revoked"]:
            workers[task_id].append(name)
    print_output(
        sorted(workers.items()),
        lambda revoked: output.print_table(["ID", "WORKERS"], [[key, ",".join(names)] for key, names in revoked]),
        to_json=lambda revoked: [{"id": task_id, "workers": names} for task_id, names in revoked],
        empty="There are no revoked tasks." if replies.up else "",
    )
    exit_for_replies(context, replies)


@tasks.command("registered")
@worker_timeout
@json_option
@click.pass_context
def registered(context: click.Context, timeout: float) -> None:
    """List the registered tasks, with their limits and workers.

    After a deployment, two lines for one task mean that not all workers run the same version.

    \b
    Example:
      flask tasks registered
    """
    replies = query_workers_with(REGISTERED, timeout)
    print_output(registered_tasks(replies), tables.print_registered)
    exit_for_replies(context, replies)


@tasks.command("queues")
@worker_timeout
@json_option
def list_queues(timeout: float) -> None:
    """List the queues: messages, age of the oldest message, and number of consumers.

    \b
    Example: stop a script if exports pile up
      test "$(flask tasks queues --json | jq '.[] | select(.name == "exports") | .length')" -lt 100
    """
    replies = query_workers(timeout)
    print_output(measure_queues(replies if replies.up else None), tables.print_queues)
    report_silent_workers(replies)


@tasks.command("schedule")
@json_option
@click.pass_context
def show_schedule(context: click.Context) -> None:
    """List the periodic tasks: their interval, when they were sent, and when they ran. Exit code 1 without beat.

    \b
    Example:
      flask tasks schedule
    """
    print_output(schedule_entries(), tables.print_schedule)
    if not is_beat_running():
        click.echo("Beat is not running: none of these tasks is sent.", err=True)
        context.exit(EXIT_NOTHING_DONE)


UNTIL_RESTART = "This lasts until the worker is restarted; {} of celery worker sets the initial value."

processes = click.argument("n", metavar="[N]", type=click.IntRange(min=1), default=1)


@dataclass(frozen=True)
class Target:
    """The worker that a command of ``worker NAME`` controls."""

    context: click.Context
    name: str
    timeout: float

    def send(self, command: str, arguments: dict[str, Any], done: str, setting: str = "") -> None:
        """Send a remote control command and print the result; `setting` is the one that it changes until a restart."""
        replies = send_command(command, arguments, self.timeout, done=done, only=[self.name])
        if not replies[0].replied:
            exit_for_silent_worker(self.context, self.name)
        print_command_replies(self.context, replies, UNTIL_RESTART.format(setting) if setting else "")

    def query(self, query: str) -> Any:
        """Return the reply to a query. If the worker does not reply, the command exits."""
        replies = query_workers_with({query: {}}, self.timeout, [self.name])
        if self.name not in replies.up:
            exit_for_silent_worker(self.context, self.name)
        return replies.up[self.name]

    def refuse(self, message: str) -> None:
        """Print why the command is not sent, and exit."""
        print_command_replies(self.context, [CommandReply(self.name, False, message)])

    def refuse_paused(self, queue: str) -> None:
        """Exit if the queue is paused."""
        if queue in paused_queues():
            self.refuse(f"does not consume from {queue}, which is paused; run flask tasks resume {queue} first.")


def worker_command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator for a command of ``worker NAME``, which has --timeout and --json and receives a Target."""

    def add(function: Callable[..., None]) -> click.Command:
        @worker.command(name)
        @worker_timeout
        @json_option
        @wraps(function)
        @click.pass_context
        def command(context: click.Context, /, timeout: float, **arguments: Any) -> None:
            group: dict[str, Any] = context.parent.params if context.parent else {}
            function(Target(context, group["name"], timeout), **arguments)

        return command

    return add


@worker_command("shutdown")
def shutdown(target: Target) -> None:
    """Stop the worker as SIGTERM does: running tasks have a time limit to finish, the others return to the queue.

    \b
    Example:
      flask tasks worker celery@host shutdown
    """
    wait = current_app.config["WORKER_STOP_TIMEOUT"]
    target.send("end", {}, f"stops; running tasks have {wait:g} s to finish, or return to the queue.")


@worker_command("restart-pool")
def restart_pool(target: Target) -> None:
    """Replace each process of the worker with a new one, after it has finished its current task.

    \b
    Example:
      flask tasks worker celery@host restart-pool
    """
    target.send("replace_processes", {}, "replaces its processes, each after it has finished its current task.")


@worker_command("grow")
@processes
def grow(target: Target, n: int) -> None:
    """Add N processes to the worker.

    \b
    Example:
      flask tasks worker celery@host grow 2
    """
    target.send("pool_grow", {"n": n}, f"grows its pool by {n} within a few seconds.", "--concurrency")


@worker_command("shrink")
@processes
def shrink(target: Target, n: int) -> None:
    """Stop N idle processes of the worker.

    \b
    Example:
      flask tasks worker celery@host shrink
    """
    target.send("end_processes", {"n": n}, f"shrinks its pool by {n}.", "--concurrency")


@worker_command("autoscale")
@click.argument("most", metavar="MAX", type=click.IntRange(min=1))
@click.argument("least", metavar="MIN", type=click.IntRange(min=1))
def autoscale(target: Target, most: int, least: int) -> None:
    """Scale the pool of the worker between MIN and MAX processes, depending on its load.

    Only for a worker that was started with --autoscale.

    \b
    Example:
      flask tasks worker celery@host autoscale 8 2
    """
    if least > most:
        raise click.BadParameter("MIN must not be above MAX.", param_hint="MIN")
    target.send(
        "autoscale", {"max": most, "min": least}, f"has {least} to {most} processes from now on.", "--autoscale"
    )


@worker_command("consume")
@queue_argument
def consume(target: Target, queue: str) -> None:
    """Make the worker consume from another queue, too.

    \b
    Example:
      flask tasks worker celery@host consume mail
    """
    target.refuse_paused(queue)
    target.send("add_consumer", {"queue": queue}, f"consumes from {queue} from now on.", "--queues")


@worker_command("stop-consuming")
@click.argument("queue", shell_complete=completion.queues)
def stop_consuming(target: Target, queue: str) -> None:
    """Make the worker stop consuming from a queue. To stop all workers permanently, use flask tasks pause.

    \b
    Example:
      flask tasks worker celery@host stop-consuming exports
    """
    target.refuse_paused(queue)
    if queue not in target.query("active_queues")["queues"]:
        target.refuse(f"does not consume from {queue}.")
    target.send("cancel_consumer", {"queue": queue}, f"no longer consumes from {queue}.", "--queues")
