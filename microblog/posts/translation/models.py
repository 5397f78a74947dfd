"""Table of translations, deleted with their posts."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.extensions import Model
from microblog.posts.models import MAX_TAG

MAX_TRANSLATION = 2000  # Unicode code points; a longer text is not accepted


class Translation(Model):
    """A translation of a post."""

    __tablename__ = "translation"

    post_id: Mapped[int] = mapped_column(sa.ForeignKey("post.id", ondelete="CASCADE"), primary_key=True)
    language: Mapped[str] = mapped_column(sa.String(MAX_TAG), primary_key=True)  # BCP 47
    body: Mapped[str] = mapped_column(sa.String(MAX_TRANSLATION))

    def __repr__(self) -> str:
        return f"<Translation of post {self.post_id} into {self.language}>"
