"""``flask tasks purge``, ``dead-letters``, ``pause``, ``resume``, ``rate-limit``, ``time-limit`` and ``run``."""

from __future__ import annotations

from typing import Any

import click
import orjson
from celery.utils.time import rate as parse_rate

from microblog.cli import json_option, print_output
from microblog.monitoring import output
from microblog.monitoring.actions import (
    InvalidTaskArguments,
    TaskNotRunnable,
    format_signature,
    run_task,
    runnable_tasks,
)
from microblog.monitoring.cli import completion, tables
from microblog.monitoring.cli.common import (
    EXIT_NOTHING_DONE,
    EXIT_USAGE_ERROR,
    command_reply_as_json,
    print_command_replies,
    tasks,
    worker_timeout,
)
from microblog.monitoring.job_queries import describe_jobs
from microblog.monitoring.queues import known_queues, purge_queue, queue_length, unfinished_tasks
from microblog.monitoring.workers import CommandReply, send_command
from microblog.taskqueue.consumer import dead_letters, delete_dead_letters
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.queues import pause_consuming, resume_consuming

UNTIL_RESTART = "This lasts until the worker is restarted; to make it permanent, set {} of the task."


def _queue(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if name not in known_queues():
        raise click.BadParameter(f"there is no queue called {name!r}; the queues are: {', '.join(known_queues())}.")
    return name


def _task(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if name not in celery_app().tasks:
        raise click.BadParameter(f"there is no task called {name!r}; see flask tasks registered.")
    return name


def _rate(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parse_rate(value)
    except (ValueError, KeyError):
        raise click.BadParameter("a rate is written as 10/s, 10/m or 10/h; 0 is no limit.") from None
    return value


queue_argument = click.argument("queue", callback=_queue, shell_complete=completion.queues)
task_argument = click.argument("task", callback=_task, shell_complete=completion.registered)


@tasks.command("purge")
@queue_argument
@click.option("--yes", is_flag=True, help="Do it; without this option, only show what would be done.")
@json_option
@click.pass_context
def purge(context: click.Context, queue: str, yes: bool) -> None:
    """Delete all messages of a queue that no worker has received.

    This does not end any job: reconcile publishes unfinished tasks again. To end jobs, use flask tasks cancel.

    \b
    Example:
      flask tasks purge mail --yes
    """
    waiting = unfinished_tasks(queue)
    purged = purge_queue(queue) if yes else queue_length(queue)
    print_output({"queue": queue, "messages": purged, "unfinished_tasks": waiting, "done": yes}, _print_purged)
    if not yes:
        click.echo("Nothing was done; add --yes to do it.", err=True)
        context.exit(EXIT_NOTHING_DONE)


def _print_purged(purged: dict[str, Any]) -> None:
    click.echo(f"{purged['queue']}: {purged['messages']} messages {'' if purged['done'] else 'would be '}deleted.")
    if waiting := purged["unfinished_tasks"]:
        click.echo(
            f"{waiting} tasks of this queue are unfinished: reconcile publishes them again. To end them, use "
            f"flask tasks cancel."
        )


@tasks.command("dead-letters")
@click.option("--delete", is_flag=True, help="Delete them after they are listed.")
@json_option
def list_dead_letters(delete: bool) -> None:
    """List the malformed messages that were set aside, the newest first.

    They come from another program that uses the same Redis, or from a damaged one. A job of this site is not among
    them: reconcile publishes it again. The newest 100 messages are kept.

    \b
    Example:
      flask tasks dead-letters --json | jq -r '.[].message'
    """
    listed = dead_letters()
    print_output(listed, tables.print_dead_letters)
    if delete:
        delete_dead_letters(len(listed))


@tasks.command("pause")
@queue_argument
@worker_timeout
@json_option
@click.pass_context
def pause_queue(context: click.Context, queue: str, timeout: float) -> None:
    """Stop all workers, also those started later, from consuming a queue. They finish tasks already received.

    Jobs of this queue wait, and users see them waiting, until flask tasks resume. The pause is stored in Redis. It
    survives restarts of workers, and is lost only together with all other data in Redis.

    \b
    Example:
      flask tasks pause exports
    """
    changed = pause_consuming(queue)
    replies = send_command("apply_pauses", {}, timeout, done=f"does not consume from {queue}.")
    _print_change(context, f"{queue} {'is paused' if changed else 'was paused already'}.", changed, replies)
    if queue == celery_app().conf.task_default_queue:
        click.echo(f"Periodic tasks wait in {queue} too: nothing expires or is cleaned up meanwhile.", err=True)


@tasks.command("resume")
@queue_argument
@worker_timeout
@json_option
@click.pass_context
def resume_queue(context: click.Context, queue: str, timeout: float) -> None:
    """Resume the consumption of a paused queue.

    \b
    Example:
      flask tasks resume exports
    """
    changed = resume_consuming(queue)
    replies = send_command("apply_pauses", {}, timeout, done="has received the change.")
    _print_change(context, f"{queue} {'is resumed' if changed else 'was not paused'}.", changed, replies)


def _print_change(context: click.Context, message: str, changed: bool, replies: list[CommandReply]) -> None:
    """Print the result of a pause or resume, and exit with NOTHING_DONE if nothing has `changed`.

    A worker that does not reply in time still applies the change by itself.
    """

    def show(_change: dict[str, Any]) -> None:
        click.echo(message)
        for each in replies:
            outcome = each.message if each.replied else "did not reply; it applies the change later."
            click.echo(f"{each.worker} {outcome}")

    workers = [command_reply_as_json(reply) for reply in replies]
    print_output({"done": changed, "outcome": message, "workers": workers}, show)
    if not changed:
        context.exit(EXIT_NOTHING_DONE)


@tasks.command("rate-limit")
@task_argument
@click.argument("rate", callback=_rate)
@worker_timeout
@json_option
@click.pass_context
def rate_limit(context: click.Context, task: str, rate: str, timeout: float) -> None:
    """Limit how often each worker starts a task, until the worker is restarted.

    A task that a worker delays occupies the worker as if it ran. Its delay does not change with a later limit.

    \b
    Example: ten mails per minute and worker; then no limit
      flask tasks rate-limit email_export 10/m
      flask tasks rate-limit email_export 0
    """
    done = f"limits {task} to {rate}." if parse_rate(rate) else f"runs {task} without a rate limit."
    replies = send_command("rate_limit", {"task_name": task, "rate_limit": rate}, timeout, done=done)
    print_command_replies(context, replies, UNTIL_RESTART.format("rate_limit"))


@tasks.command("time-limit")
@task_argument
@click.argument("soft", type=click.FloatRange(min=0, min_open=True))
@click.argument("hard", type=click.FloatRange(min=0, min_open=True))
@worker_timeout
@json_option
@click.pass_context
def time_limit(context: click.Context, task: str, soft: float, hard: float, timeout: float) -> None:
    """Limit the run time of a task: after SOFT seconds it is asked to end, after HARD seconds it is killed.

    The limits apply to tasks that start from now on, until the worker is restarted.

    \b
    Example:
      flask tasks time-limit export_posts 600 660
    """
    if soft > hard:
        raise click.BadParameter("the soft limit must not be above the hard one.", param_hint="SOFT")
    done = f"asks {task} to end after {soft:g} s and kills it after {hard:g} s."
    replies = send_command("time_limit", {"task_name": task, "soft": soft, "hard": hard}, timeout, done=done)
    print_command_replies(context, replies, UNTIL_RESTART.format("soft_time_limit and time_limit"))


@tasks.command("run")
@click.argument("name", required=False, shell_complete=completion.runnable)
@click.option("--arg", "args", metavar="VALUE", multiple=True, help="Positional arguments, as JSON or text, in order.")
@click.option("--kwarg", "kwargs", metavar="NAME=VALUE", multiple=True, help="Keyword arguments.")
@json_option
@click.pass_context
def run(context: click.Context, name: str | None, args: tuple[str, ...], kwargs: tuple[str, ...]) -> None:
    """Run a task as a job of the system. Without NAME, list the tasks that can be run.

    \b
    Examples:
      flask tasks run
      flask tasks run sweep_archives
      flask tasks run NAME --arg 7 --kwarg language=en
    """
    if name is None:
        print_output(
            runnable_tasks(),
            _print_runnable,
            to_json=lambda found: [{"name": name, "arguments": format_signature(found[name])} for name in found],
        )
        return
    named = dict(_name_and_value(kwarg) for kwarg in kwargs)
    try:
        job = run_task(name, [_value(arg) for arg in args], named)
    except (TaskNotRunnable, InvalidTaskArguments) as error:
        click.echo(str(error), err=True)
        context.exit(EXIT_USAGE_ERROR)
    when = "" if job.root.published_at else " Redis is unavailable; the task starts once Redis is available again."
    print_output(
        job,
        lambda job: click.echo(f"{job.id}: launched {name}.{when}"),
        to_json=lambda job: describe_jobs([job])[0],
    )


def _print_runnable(found: dict[str, Any]) -> None:
    rows = [[name, format_signature(task), (task.__doc__ or "").partition("\n")[0]] for name, task in found.items()]
    output.print_table(["NAME", "ARGUMENTS", "DESCRIPTION"], rows)


def _name_and_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE.", param_hint="--kwarg")
    return name, _value(value)


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text
