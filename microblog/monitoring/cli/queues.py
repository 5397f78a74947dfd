"""``flask tasks purge``, ``pause``, ``resume``, ``rate-limit``, ``time-limit`` and ``run``."""

from __future__ import annotations

from typing import Any

import click
import orjson
from celery.utils.time import rate as parse_rate

from microblog.cli import as_json, print_json
from microblog.monitoring import output
from microblog.monitoring.actions import (
    InvalidTaskArguments,
    TaskNotRunnable,
    parse_task_arguments,
    run_task,
    runnable_tasks,
)
from microblog.monitoring.cli import completion
from microblog.monitoring.cli.common import NOTHING_DONE, WRONG, in_json, print_said, tasks, worker_timeout
from microblog.monitoring.job_queries import describe_jobs
from microblog.monitoring.queues import known_queues, purge_queue, queue_length, unfinished_tasks
from microblog.monitoring.workers import CommandReply, send_command
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.queues import pause_consuming, resume_consuming

LOST = "A worker that is restarted forgets it; what is to last is said where the task is, as {}."


def _queue(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if name not in known_queues():
        raise click.BadParameter(f"there is no queue called {name!r}; there are: {', '.join(known_queues())}.")
    return name


def _task(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if name not in celery_app().tasks:
        raise click.BadParameter(f"there is no task called {name!r}; see flask tasks registered.")
    return name


def _rate(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parse_rate(value)
    except (ValueError, KeyError):
        raise click.BadParameter("a rate is such as 10/s, 10/m or 10/h, and 0 is none.") from None
    return value


queue_argument = click.argument("queue", callback=_queue, shell_complete=completion.queues)
task_argument = click.argument("task", callback=_task, shell_complete=completion.registered)


@tasks.command("purge")
@queue_argument
@click.option("--yes", is_flag=True, help="Do it; without this, only say what would be done.")
@as_json
@click.pass_context
def purge(context: click.Context, queue: str, yes: bool, as_json: bool) -> None:
    """Throw away all messages of a queue that no worker has taken.

    This ends no job: reconcile publishes what is still to be done again. What ends jobs is flask tasks cancel.

    \b
    Example:
      flask tasks purge mail --yes
    """
    waiting = unfinished_tasks(queue)
    purged = purge_queue(queue) if yes else queue_length(queue)
    if as_json:
        print_json({"queue": queue, "messages": purged, "unfinished_tasks": waiting, "done": yes})
    else:
        click.echo(f"{queue}: {purged} messages {'thrown away' if yes else 'would be thrown away'}.")
        if waiting:
            click.echo(
                f"{waiting} tasks of this queue are unfinished: reconcile publishes them again. To end them, use "
                f"flask tasks cancel."
            )
    if not yes:
        click.echo("Nothing was done; add --yes to do it.", err=True)
        context.exit(NOTHING_DONE)


@tasks.command("pause")
@queue_argument
@worker_timeout
@as_json
@click.pass_context
def pause_queue(context: click.Context, queue: str, timeout: float, as_json: bool) -> None:
    """Have all workers, now and later, take nothing from a queue. What they have taken already, they finish.

    Jobs of this queue wait, and users see that they do, until flask tasks resume. Redis keeps it through restarts; it
    is forgotten only with everything else.

    \b
    Example:
      flask tasks pause exports
    """
    newly = pause_consuming(queue)
    said = send_command("apply_pauses", {}, timeout, done=f"takes nothing from {queue}.")
    _print_switch(context, f"{queue} {'is paused' if newly else 'was paused already'}.", newly, said, as_json)
    if queue == celery_app().conf.task_default_queue:
        click.echo(f"What beat sends waits in {queue} too: nothing is reconciled until it is resumed.", err=True)


@tasks.command("resume")
@queue_argument
@worker_timeout
@as_json
@click.pass_context
def resume_queue(context: click.Context, queue: str, timeout: float, as_json: bool) -> None:
    """Have workers take from a queue again that was paused.

    \b
    Example:
      flask tasks resume exports
    """
    newly = resume_consuming(queue)
    said = send_command("apply_pauses", {}, timeout, done="has heard it.")
    _print_switch(context, f"{queue} {'is resumed' if newly else 'was not paused'}.", newly, said, as_json)


def _print_switch(context: click.Context, sentence: str, newly: bool, said: list[CommandReply], as_json: bool) -> None:
    """Print what became of a pause or its end, to which every worker comes by itself, and exit accordingly."""
    if as_json:
        print_json({"done": newly, "outcome": sentence, "workers": [in_json(one) for one in said]})
    else:
        click.echo(sentence)
        for one in said:
            click.echo(f"{one.worker} {one.sentence if one.answered else 'does not answer; it heeds it once it does.'}")
    if not newly:
        context.exit(NOTHING_DONE)


@tasks.command("rate-limit")
@task_argument
@click.argument("rate", callback=_rate)
@worker_timeout
@as_json
@click.pass_context
def rate_limit(context: click.Context, task: str, rate: str, timeout: float, as_json: bool) -> None:
    """Have each worker begin a task at most so often. A worker that is restarted forgets it.

    What a worker has taken and holds back occupies it as if it ran, and waits as long as the limit of then said.

    \b
    Example: ten mails a minute and worker; and as many as there are
      flask tasks rate-limit email_export 10/m
      flask tasks rate-limit email_export 0
    """
    done = f"begins {task} at most {rate}." if parse_rate(rate) else f"begins {task} as often as it can."
    said = send_command("rate_limit", {"task_name": task, "rate_limit": rate}, timeout, done=done)
    print_said(context, said, as_json, note=LOST.format("rate_limit"))


@tasks.command("time-limit")
@task_argument
@click.argument("soft", type=click.FloatRange(min=0, min_open=True))
@click.argument("hard", type=click.FloatRange(min=0, min_open=True))
@worker_timeout
@as_json
@click.pass_context
def time_limit(context: click.Context, task: str, soft: float, hard: float, timeout: float, as_json: bool) -> None:
    """Give a task so many seconds from its start: at SOFT it is asked to end, at HARD it is killed.

    It holds for what begins from now on. A worker that is restarted forgets it.

    \b
    Example:
      flask tasks time-limit export_posts 600 660
    """
    if soft > hard:
        raise click.BadParameter("the soft limit must not be above the hard one.", param_hint="SOFT")
    done = f"asks {task} to end after {soft:g} s and kills it after {hard:g} s."
    said = send_command("time_limit", {"task_name": task, "soft": soft, "hard": hard}, timeout, done=done)
    print_said(context, said, as_json, note=LOST.format("soft_time_limit and time_limit"))


@tasks.command("run")
@click.argument("name", required=False, shell_complete=completion.runnable)
@click.option("--arg", "args", metavar="VALUE", multiple=True, help="An argument, as JSON or else text; in order.")
@click.option("--kwarg", "kwargs", metavar="NAME=VALUE", multiple=True, help="An argument by its name.")
@as_json
@click.pass_context
def run(
    context: click.Context, name: str | None, args: tuple[str, ...], kwargs: tuple[str, ...], as_json: bool
) -> None:
    """Run a task by hand, as a job of the system's own. Without NAME, list the tasks that may be run so.

    \b
    Examples:
      flask tasks run
      flask tasks run reconcile
      flask tasks run count_words --arg 7 --kwarg language=en
    """
    if name is None:
        _print_runnable(as_json)
        return
    named = dict(_name_and_value(kwarg) for kwarg in kwargs)
    try:
        job = run_task(name, [_value(arg) for arg in args], named)
    except (TaskNotRunnable, InvalidTaskArguments) as refused:
        click.echo(str(refused), err=True)
        context.exit(WRONG)
    if as_json:
        print_json(describe_jobs([job])[0])
        return
    when = "" if job.root.published_at else " It starts once Redis is back, which does not answer now."
    click.echo(f"{job.id}: launched {name}.{when}")


def _print_runnable(as_json: bool) -> None:
    found = runnable_tasks()
    if as_json:
        print_json([{"name": name, "arguments": parse_task_arguments(task)} for name, task in found.items()])
    else:
        rows = [
            [name, parse_task_arguments(task), (task.__doc__ or "").partition("\n")[0]] for name, task in found.items()
        ]
        output.print_table(["NAME", "ARGUMENTS", "WHAT IT DOES"], rows)


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
