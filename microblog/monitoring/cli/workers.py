"""``flask tasks workers``, ``worker``, ``active`` … ``registered``, ``queues`` and ``schedule``: what workers do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

import click
from flask.cli import AppGroup, with_appcontext

from microblog.commands import as_json, print_json
from microblog.monitoring import display, queues, schedule, worker_report, workers
from microblog.monitoring.cli import complete
from microblog.monitoring.cli.answers import end_with, name_silent, refuse_silent
from microblog.monitoring.cli.group import NOTHING_DONE, tasks, worker_timeout


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
    answers = workers.ask(timeout)
    described = [workers.describe(name, answers) for name in sorted({*answers.up, *answers.silent})]
    if as_json:
        print_json(described)
    elif described:
        worker_report.print_workers(described)
    end_with(context, answers)


class OfOneWorker(AppGroup):
    """A group whose own options may come after its argument, as in ``worker NAME --json``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Let options and arguments mix unless a command follows, to which the options behind it belong."""
        context.allow_interspersed_args = not any(arg in self.commands for arg in args)
        return super().parse_args(context, args)


@tasks.group("worker", cls=OfOneWorker, invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@click.argument("name", shell_complete=complete.workers)
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
    answers = workers.ask_about(workers.everything(), timeout, [name])
    if name not in answers.up:
        refuse_silent(context, name)
    described, said = workers.describe(name, answers), answers.up[name]
    held = {question: workers.tasks(answers, question) for question in ("active", "reserved", "scheduled")}
    if as_json:
        print_json(
            described | held | {key: said[key] for key in ("revoked", "registered")} | {"settings": said["conf"]}
        )
    else:
        worker_report.print_worker(described, said, held)


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
    answers = workers.ask_about({question: {}}, timeout)
    listed = workers.tasks(answers, question)
    if as_json:
        print_json(listed)
    elif listed:
        worker_report.print_tasks(listed)
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
    answers = workers.ask_about({"revoked": {}}, timeout)
    knowing: dict[str, list[str]] = defaultdict(list)
    for name, said in answers.up.items():
        for task_id in said["revoked"]:
            knowing[task_id].append(name)
    if as_json:
        print_json([{"id": task_id, "workers": names} for task_id, names in sorted(knowing.items())])
    elif knowing:
        display.print_table(["ID", "WORKERS"], [[task_id, ",".join(knowing[task_id])] for task_id in sorted(knowing)])
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
    answers = workers.ask_about(workers.REGISTERED, timeout)
    kinds = workers.registered(answers)
    if as_json:
        print_json(kinds)
    elif kinds:
        worker_report.print_registered(kinds)
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
    answers = workers.ask(timeout)
    measured = queues.measure(answers if answers.up else None)
    if as_json:
        print_json([asdict(queue) for queue in measured])
    else:
        worker_report.print_queues(measured)
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
    entries = schedule.entries()
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        worker_report.print_schedule(entries)
    if not schedule.beat_is_there():
        click.echo("No beat is running: nothing of this is sent.", err=True)
        context.exit(NOTHING_DONE)
