"""``flask demo``: create the demo user and other users with posts, in development."""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import with_appcontext
from sqlalchemy.exc import IntegrityError

from microblog.accounts.models import User
from microblog.extensions import db

NAME = "demo"
PASSWORD = "demo"  # noqa: S105 - it is no secret: it only exists in development
USERS, POSTS, SEED = 13, 800, 2026


@click.command("demo")
@click.option("--users", metavar="N", type=click.IntRange(min=1), default=USERS, help="How many, demo among them.")
@click.option("--posts", metavar="N", type=click.IntRange(min=0), default=POSTS, help="How many, 250 of them demo's.")
@click.option("--seed", metavar="N", type=int, default=SEED, help="Another seed, another town.")
@with_appcontext
def create(users: int, posts: int, seed: int) -> None:
    """Add the user demo (password: demo), others to read, and a year of posts. Only works once.

    The same numbers make the same people, posts and followers; only their times run up to now.

    \b
    Example: enough to see how fast the pages are
      flask demo --users 1000 --posts 100000
    """
    from microblog.demo.seed import fill_database

    if current_app.config["MICROBLOG_ENV"] != "development":
        raise click.ClickException("The demo data is for development only (MICROBLOG_ENV=development).")
    if User.with_username(NAME) is not None:
        if (users, posts, seed) != (USERS, POSTS, SEED):
            raise click.ClickException("There is demo data already. Another amount needs an empty database.")
        click.echo("The demo data is there already.")
        return
    try:
        fill_database(NAME, PASSWORD, users=users, posts=posts, seed=seed)
    except IntegrityError:
        db.session.rollback()
        raise click.ClickException("Somebody here has the name of one of these people. Nothing was added.") from None
    click.echo(f"Added {users} users and {posts} posts. Sign in as {NAME}, password {PASSWORD}.")
