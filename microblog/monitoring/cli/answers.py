"""How commands end that asked workers: with the names of those that are silent, and an exit code that says so."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

import click

from microblog.commands import AWAY, print_json
from microblog.monitoring import display, presence
from microblog.monitoring.cli.group import NOTHING_DONE, WRONG
from microblog.monitoring.remote import Said
from microblog.monitoring.workers import Answers


def end_with(context: click.Context, answers: Answers) -> None:
    """Name the workers that are silent, and exit accordingly."""
    name_silent(answers)
    if not answers.up:
        click.echo("No worker answers.", err=True)
        context.exit(AWAY)
    if answers.silent:
        context.exit(NOTHING_DONE)


def name_silent(answers: Answers) -> None:
    """Name the workers that are silent."""
    for name in answers.silent:
        click.echo(_silence(name, answers.last_seen[name]), err=True)


def refuse_silent(context: click.Context, name: str) -> NoReturn:
    """Say that a worker does not answer, or that there is none of this name, and exit."""
    known = presence.known()
    if name in known:
        click.echo(_silence(name, known[name]), err=True)
        context.exit(AWAY)
    click.echo(f"There is no worker called {name}; known are: {', '.join(sorted(known)) or 'none'}.", err=True)
    context.exit(WRONG)


def print_said(context: click.Context, said: list[Said], as_json: bool, note: str = "") -> None:
    """Print what became of a command at each worker, and a `note` if any did it; exit with the worst of their codes."""
    if as_json:
        print_json([in_json(one) for one in said])
    for one in said:
        if not (as_json and one.done):
            click.echo(f"{one.worker} {one.sentence}", err=not one.done)
    if note and any(one.done for one in said):
        click.echo(note, err=True)
    if not any(one.answered for one in said):
        click.echo("No worker answers; nothing was done.", err=True)
        context.exit(AWAY)
    if not all(one.done for one in said):
        context.exit(NOTHING_DONE)


def in_json(said: Said) -> dict[str, Any]:
    """What became of a command at a worker."""
    return {"worker": said.worker, "done": said.done, "outcome": said.sentence}


def _silence(name: str, last_seen: datetime) -> str:
    return f"{name} does not answer; it was last seen at {display.moment(last_seen)} UTC."
