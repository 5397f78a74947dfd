"""Form that filters the operators' list of jobs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from wtforms import Field, SelectField, StringField
from wtforms.validators import Length, ValidationError

from microblog.accounts.models import MAX_USERNAME, User
from microblog.clock import utcnow
from microblog.monitoring.filters import Filters, Order
from microblog.taskqueue import states
from microblog.validators import QueryForm, Storable

LONGEST_TEXT = 255  # characters
#: Choices of the state filter, each with the states that it selects.
STATES = {"unfinished": states.UNFINISHED, "running": states.RUNNING} | {
    state.lower(): (state,) for state in (*states.WAITING, *states.FINISHED)
}
AGES = {"5m": timedelta(minutes=5), "1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7)}


class FilterForm(QueryForm):
    """Filters and order of the list."""

    state = SelectField(_l("State"), default="", filters=[lambda state: state.lower() if state else state])
    user = StringField(_l("User"), [Storable(), Length(max=MAX_USERNAME)])
    name = StringField(_l("Task"), [Storable(), Length(max=LONGEST_TEXT)])
    age = SelectField(_l("Created"), default="")
    queue = StringField(_l("Queue"), [Storable(), Length(max=LONGEST_TEXT)])
    worker = StringField(_l("Worker"), [Storable(), Length(max=LONGEST_TEXT)])
    error = StringField(_l("Text in the error"), [Storable(), Length(max=LONGEST_TEXT)])
    order = SelectField(_l("Order"), default="")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state.choices = [("", _("Any")), *_state_choices()]
        self.age.choices = [("", _("Any time")), *_age_choices()]
        self.order.choices = [
            ("", _("Newest first")),
            (Order.OLDEST.value, _("Oldest first")),
            (Order.ENDED.value, _("Ended last first")),
        ]
        self._user: User | None = None

    def validate_user(self, field: Field) -> None:
        """Reject an unknown username: an empty list would look like a user without jobs."""
        if not field.data:
            return
        self._user = User.with_username(field.data)
        if self._user is None:
            raise ValidationError(_("There is nobody of this name."))

    @property
    def order_by(self) -> Order:
        """The order of the list."""
        return Order(self.order.data or Order.NEWEST)

    def filters(self, now: datetime | None = None) -> Filters:
        """Return the filters of a valid form. Ages are relative to `now`."""
        relation, _colon, age = (self.age.data or "").partition(":")
        limit = (now or utcnow()) - AGES[age] if age else None
        return Filters(
            states=frozenset(STATES.get(self.state.data or "", ())),
            user_id=self._user.id if self._user else None,
            name=self.name.data or None,
            queue=self.queue.data or None,
            worker=self.worker.data or None,
            error=self.error.data or None,
            created_after=limit if relation == "within" else None,
            created_before=limit if relation == "before" else None,
        )

    def address(self) -> dict[str, Any]:
        """Return the query parameters of the same list."""
        return {field.name: field.data for field in self if field.data}


def _state_choices() -> list[tuple[str, str]]:
    labels = {
        "unfinished": _("Not ended yet"),
        "pending": _("Waiting"),
        "running": _("Running"),
        "retry": _("To be tried again"),
        "success": _("Done"),
        "failure": _("Failed"),
        "revoked": _("Cancelled"),
    }
    return list(labels.items())


def _age_choices() -> list[tuple[str, str]]:
    lengths = {"5m": _("5 minutes"), "1h": _("an hour"), "1d": _("a day"), "7d": _("a week")}
    within = [(f"within:{age}", _("Less than %(length)s ago", length=length)) for age, length in lengths.items()]
    return within + [(f"before:{age}", _("More than %(length)s ago", length=length)) for age, length in lengths.items()]
