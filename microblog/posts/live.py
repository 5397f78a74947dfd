"""Posts on open pages: who is told of a new one or of one that is gone, and what a page that was away has missed.

Each post is published once, however many read its author: under the topic of all posts and under its author's. A page
listens to the topics of what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import abort, current_app
from flask_babel import get_locale, ngettext
from flask_babel import gettext as _

from microblog.accounts.models import Follow, User
from microblog.accounts.signals import account_closed
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.lookup import MAX_ID
from microblog.notifications import sources
from microblog.notifications.feed import instant
from microblog.notifications.live import RESYNC, publish, telling
from microblog.notifications.sources import Event, Source
from microblog.paging import Listing
from microblog.posts import timeline
from microblog.posts.models import Post

EVERYBODY = "posts"  # the topic of all posts
MOST = 100  # new posts that a page counts; of more it says "100+"
MOST_SHOWN = 200  # posts that a page may ask about

_IDS = re.compile(r"(?:\d{1,10}(?:,\d{1,10})*)?", re.ASCII)


def topic_of(author_id: int) -> str:
    """The topic of one author's posts."""
    return f"author:{author_id}"


@telling()
def announce(post: Post) -> None:
    """Tell open pages of a new post; it must be committed by now."""
    _publish(_event("post", post.id, post.user_id, post.timestamp))


def announce_deletion(post_id: int, author_id: int) -> None:
    """Tell open pages that a post is gone; that must be committed by now."""
    _publish(_event("post-deleted", post_id, author_id, utcnow()))


@account_closed.connect
def announce_closed(author_id: int) -> None:
    """Let open pages ask which of the posts that they show are gone, since all of this author's are."""
    publish(current_app, _topics(author_id), RESYNC)


def labels() -> dict[str, str]:
    """What the bar says of {n} new posts, by the plural category that the number has in the reader's language."""
    locale = get_locale()
    examples = {locale.plural_form(n) if locale else "other": n for n in range(MOST, 0, -1)}
    texts = {
        form: ngettext("%(count)s new post", "%(count)s new posts", n, count="{n}") for form, n in examples.items()
    }
    return texts | {"most": _("More than %(count)s new posts", count=MOST)}


@sources.offers("posts")
def posts_of_page(reader_id: int, arguments: Mapping[str, str]) -> Source | None:
    """What a page with posts listens to, and what it missed.

    ``posts`` says which timeline the page shows: ``home``, ``explore``, or ``@`` and a username. ``shown`` has the ids
    of the posts on it, with commas between, to hear which of these are gone.
    """
    name = arguments.get("posts")
    if name is None:
        return None
    shown = _ids(arguments.get("shown", ""))
    found = _timeline(name, reader_id)
    if found is None:
        return Source((), lambda _since: _deleted(shown))
    topics, query = found

    def missed(since: float) -> list[Event]:
        written = timeline.written_after(query, instant(since), MOST + 1)
        return [_event("post", post.id, post.user_id, post.timestamp) for post in written] + _deleted(shown)

    return Source(topics, missed)


def _timeline(name: str, reader_id: int) -> tuple[list[str], sa.Select[Post] | Listing[Post]] | None:
    """The topics and the posts of a timeline; None if it is that of a user who is gone, or has another name now."""
    if name == "home":
        followed = db.session.scalars(sa.select(Follow.followed_id).where(Follow.follower_id == reader_id))
        return [topic_of(reader_id), *map(topic_of, followed)], timeline.on_home_of(reader_id)
    if name == "explore":
        return [EVERYBODY], timeline.of_everybody()
    if not name.startswith("@"):
        abort(400, _("“posts” must be home, explore, or @ and a username."))
    author = User.with_username(name.removeprefix("@"))
    return None if author is None else ([topic_of(author.id)], timeline.by(author.id))


def _ids(text: str) -> list[int]:
    ids = [int(one) for one in text.split(",") if one] if _IDS.fullmatch(text) else None
    if ids is None or len(ids) > MOST_SHOWN:
        abort(400, _("“shown” must be the numbers of at most %(most)d posts.", most=MOST_SHOWN))
    return ids


def _deleted(shown: list[int]) -> list[Event]:
    """An event for each of these posts that nobody can read any more; whose it was is not told."""
    asked = [post_id for post_id in shown if post_id <= MAX_ID]
    if not asked:
        return []
    there = set(db.session.scalars(timeline.of_everybody().with_only_columns(Post.id).where(Post.id.in_(asked))))
    return [_event("post-deleted", post_id, None, utcnow()) for post_id in asked if post_id not in there]


def _publish(event: Event) -> None:
    publish(current_app, _topics(event["data"]["author"]), event)


def _topics(author_id: int) -> list[str]:
    return [EVERYBODY, topic_of(author_id)]


def _event(name: str, post_id: int, author_id: int | None, at: datetime) -> dict[str, Any]:
    return {
        "name": name,
        "subject": str(post_id),
        "timestamp": at.timestamp(),
        "data": {"id": post_id, "author": author_id},
    }
