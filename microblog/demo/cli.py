"""``flask demo``: create the demo user and other users with posts, in development."""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import with_appcontext
from sqlalchemy.exc import IntegrityError

from microblog.accounts.models import User
from microblog.extensions import db

NAME = "demo"
PASSWORD = "demo"  # noqa: S105 - not a secret, since it is used in development only
USERS, POSTS, SEED = 13, 800, 2026


@click.command("demo")
@click.option("--users", metavar="N", type=click.IntRange(min=1), default=USERS, help="Users, including demo.")
@click.option("--posts", metavar="N", type=click.IntRange(min=0), default=POSTS, help="Posts; 250 of them by demo.")
@click.option("--seed", metavar="N", type=int, default=SEED, help="Seed of the random generator.")
@click.option("--more", metavar="N", type=click.IntRange(min=1), help="Only add N posts by demo to existing data.")
@with_appcontext
def demo(users: int, posts: int, seed: int, more: int | None) -> None:
    """Add the user demo (password: demo), other users, and a year of posts. Only works once.

    The same options create the same users, posts and followers; only the timestamps differ, since the year ends now.

    \b
    Example: enough data to measure how fast the pages are
      flask demo --users 1000 --posts 100000
    An export that takes some time
      flask demo --more 1000000
    """
    from microblog.demo.seed import add_posts, fill_database

    if current_app.config["MICROBLOG_ENV"] != "development":
        raise click.ClickException("The demo data is for development only (MICROBLOG_ENV=development).")
    user = User.with_username(NAME)
    if more is not None:
        if user is None:
            raise click.ClickException("There is no demo data yet; run flask demo first.")
        if not add_posts(user.id, more):
            raise click.ClickException(f"{NAME} has no posts to copy.")
        click.echo(f"Added {more} posts of {NAME}.")
        return
    if user is not None:
        if (users, posts, seed) != (USERS, POSTS, SEED):
            raise click.ClickException("Demo data already exists. Other options need an empty database.")
        click.echo("The demo data already exists.")
        return
    try:
        fill_database(NAME, PASSWORD, users=users, posts=posts, seed=seed)
    except IntegrityError:
        db.session.rollback()
        raise click.ClickException("A user with one of the demo names already exists. Nothing was added.") from None
    click.echo(f"Added {users} users and {posts} posts. Sign in as {NAME}, password {PASSWORD}.")
