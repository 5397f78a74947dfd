"""`flask demo`: a user to sign in as, and something to read, in development."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click
import sqlalchemy as sa
from flask import current_app
from flask.cli import with_appcontext

from microblog.accounts.models import Follow, User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.posts.models import Post

NAME = "demo"
PASSWORD = "demo"  # noqa: S105 - it is no secret: it only exists in development
POSTS = 250
YEAR = timedelta(days=365)
OTHERS = {"susan": 20, "miguel": 16, "aiko": 13, "tomasz": 9, "ines": 6}  # name: number of posts
RECENTLY = timedelta(days=45)  # when they joined

_OPENINGS = (
    "Up before the birds:",
    "Note to self:",
    "Overheard on the tram:",
    "Today I learned:",
    "Small victory:",
    "Unpopular opinion:",
    "Slow Sunday:",
    "After the rain:",
    "Thought of the evening:",
    "From my notebook:",
    "For the record:",
    "Nobody asked, but",
    "Once more with feeling:",
)
_THOUGHTS = (
    "the first coffee tastes better on the balcony.",
    "a bug that hides for a week is always one line long.",
    "nobody waters the plants as badly as I do.",
    "the bakery on the corner sells yesterday's bread at half the price.",
    "you can cycle to the lake and be back before breakfast.",
    "a good index is worth more than a fast disk.",
    "the neighbour's cat has moved in with us.",
    "reading the manual takes ten minutes, guessing takes an afternoon.",
    "soup is a perfectly fine breakfast.",
    "the old cinema shows silent films with a real piano again.",
    "write the test first and the evening is yours.",
    "the heron was back at the pond.",
    "my grandmother was right about the onions.",
    "the night train is slower, and worth it.",
    "every shelf I build leans a little to the left.",
    "a walk without a phone is twice as long.",
    "the library lends out sewing machines now.",
    "tomatoes need more sun than this street has.",
    "the best meeting is the one that became a letter.",
    "it takes three people to carry a piano and one to play it.",
    "crème brûlée is easier than it sounds.",
    "backups are only as good as the last one you restored.",
    "the market is cheapest ten minutes before it closes.",
    "I still draw my diagrams on paper.",
    "snow makes the whole town whisper.",
    "the choir needs tenors. The choir always needs tenors.",
)


@click.command("demo")
@with_appcontext
def create() -> None:
    """Add the user demo (password: demo), others to read, and a year of posts. Only works once."""
    if current_app.config["MICROBLOG_ENV"] != "development":
        raise click.ClickException("The demo data is for development only (MICROBLOG_ENV=development).")
    if User.with_username(NAME) is not None:
        click.echo("The demo data is there already.")
        return
    chance = random.Random(2026)
    bodies = _bodies(chance)
    posts = list(_posts_by(_add_user(NAME, PASSWORD, YEAR), POSTS, bodies, chance))
    for name, count in OTHERS.items():
        posts += _posts_by(_add_user(name, secrets.token_urlsafe(), RECENTLY), count, bodies, chance)
    # In the order of time, as they would have come: then the ids run with it.
    db.session.execute(sa.insert(Post), sorted(posts, key=lambda post: post["timestamp"]))
    _let_everybody_follow(chance)
    db.session.commit()
    click.echo(f"Added {len(OTHERS) + 1} users and {len(posts)} posts. Sign in as {NAME}, password {PASSWORD}.")


def _add_user(name: str, password: str, since: timedelta) -> User:
    user = User(username=name, email=f"{name}@example.com", created_at=utcnow() - since)
    user.set_password(password)
    db.session.add(user)
    db.session.flush()
    return user


def _let_everybody_follow(chance: random.Random) -> None:
    """The demo user follows all but one, who is left to be discovered; the others follow some of each other."""
    people = list(db.session.scalars(sa.select(User).order_by(User.id)))
    for follower in people:
        others = [person for person in people if person is not follower]
        for followed in others[:-1] if follower.username == NAME else chance.sample(others, 3):
            db.session.add(Follow(follower_id=follower.id, followed_id=followed.id))


def _bodies(chance: random.Random) -> Iterator[str]:
    """Things to say, none of them twice."""
    pairs = list(itertools.product(_OPENINGS, _THOUGHTS))
    chance.shuffle(pairs)
    return (f"{opening} {thought}" for opening, thought in pairs)


def _posts_by(author: User, count: int, bodies: Iterator[str], chance: random.Random) -> Iterator[dict[str, Any]]:
    """`count` posts of `author`, spread over the time since they joined."""
    now = utcnow()
    for body in itertools.islice(bodies, count):
        moment = now - (now - author.created_at) * chance.random()
        yield {"body": body, "timestamp": moment, "user_id": author.id}
