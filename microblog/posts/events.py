"""Events about new and deleted posts for open pages, and replay of missed ones.

A post is published once, under the topic of all posts and that of its author, however many followers there are.
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

from microblog.accounts.models import Follow, User, account_closed
from microblog.database import database_time
from microblog.extensions import db
from microblog.notifications import replay
from microblog.notifications.pubsub import RESYNC, ignore_unavailable_database, publish
from microblog.notifications.replay import Event, EventSource, time_from_seconds
from microblog.pagination import PageQuery
from microblog.posts.models import Post
from microblog.posts.queries import all_posts, home_posts, posts_by, posts_written_after
from microblog.validators import MAX_ID

ALL_POSTS_TOPIC = "posts"  # the topic of all posts
MAX_COUNTED = 100  # new posts that a page counts; if there are more, it shows "More than 100"
MAX_SHOWN_IDS = 200  # posts that a page may list in a request

_IDS = re.compile(r"(?:\d{1,10}(?:,\d{1,10})*)?", re.ASCII)


def post_topic(author_id: int) -> str:
    """Return the topic of one author's posts."""
    return f"author:{author_id}"


@ignore_unavailable_database()
def announce_post(post: Post) -> None:
    """Notify open pages of a new post, after its commit."""
    _publish(_event("post", post.id, post.user_id, post.timestamp))


@ignore_unavailable_database()
def announce_post_deletion(post_id: int, author_id: int) -> None:
    """Notify open pages that a post was deleted, after the commit."""
    _publish(_event("post-deleted", post_id, author_id, database_time(db.session)))


@account_closed.connect
def announce_account_closed(author_id: int) -> None:
    """Make open pages request which of their posts are no longer visible, since all of this author's are hidden."""
    publish(current_app, _topics(author_id), RESYNC)


def post_labels() -> dict[str, str]:
    """Return the text of the bar for {n} new posts, by plural category of the reader's language."""
    locale = get_locale()
    examples = {locale.plural_form(n) if locale else "other": n for n in range(MAX_COUNTED, 0, -1)}
    texts = {
        form: ngettext("%(count)s new post", "%(count)s new posts", n, count="{n}") for form, n in examples.items()
    }
    return texts | {"most": _("More than %(count)s new posts", count=MAX_COUNTED)}


@replay.provides_events("posts")
def post_events_for_page(reader_id: int, arguments: Mapping[str, str]) -> EventSource | None:
    """Return the topics of a page with posts, and the events that it missed.

    ``posts`` names the timeline that the page shows: ``home``, ``explore``, or ``@`` and a username. ``shown`` lists
    the ids of the posts on it, separated by commas; those that are no longer visible are reported as deleted.
    """
    name = arguments.get("posts")
    if name is None:
        return None
    shown = _ids(arguments.get("shown", ""))
    timeline = _timeline(name, reader_id)
    if timeline is None:
        return EventSource((), lambda _since: _deleted(shown))
    topics, query = timeline

    def missed(since: float) -> list[Event]:
        written = posts_written_after(query, time_from_seconds(since), MAX_COUNTED + 1)
        return [_event("post", post.id, post.user_id, post.timestamp) for post in written] + _deleted(shown)

    return EventSource(topics, missed)


def _timeline(name: str, reader_id: int) -> tuple[list[str], sa.Select[Post] | PageQuery[Post]] | None:
    """Return the topics and the query of a timeline; None if it belongs to a user who was deleted or renamed."""
    if name == "home":
        followed = db.session.scalars(sa.select(Follow.followed_id).where(Follow.follower_id == reader_id))
        return [post_topic(reader_id), *map(post_topic, followed)], home_posts(reader_id)
    if name == "explore":
        return [ALL_POSTS_TOPIC], all_posts()
    if not name.startswith("@"):
        abort(400, _("“posts” must be home, explore, or @ and a username."))
    author = User.with_username(name.removeprefix("@"))
    return None if author is None else ([post_topic(author.id)], posts_by(author.id))


def _ids(text: str) -> list[int]:
    ids = [int(number) for number in text.split(",") if number] if _IDS.fullmatch(text) else None
    if ids is None or len(ids) > MAX_SHOWN_IDS:
        abort(400, _("“shown” must be the numbers of at most %(most)d posts.", most=MAX_SHOWN_IDS))
    return ids


def _deleted(shown: list[int]) -> list[Event]:
    """Return an event, without the author, for each of these posts that is no longer visible."""
    ids = [post_id for post_id in shown if post_id <= MAX_ID]
    if not ids:
        return []
    visible = set(db.session.scalars(all_posts().with_only_columns(Post.id).where(Post.id.in_(ids))))
    now = database_time(db.session)
    return [_event("post-deleted", post_id, None, now) for post_id in ids if post_id not in visible]


def _publish(event: Event) -> None:
    publish(current_app, _topics(event["data"]["author"]), event)


def _topics(author_id: int) -> list[str]:
    return [ALL_POSTS_TOPIC, post_topic(author_id)]


def _event(name: str, post_id: int, author_id: int | None, at: datetime) -> dict[str, Any]:
    return {
        "name": name,
        "subject": str(post_id),
        "timestamp": at.timestamp(),
        "data": {"id": post_id, "author": author_id},
    }
