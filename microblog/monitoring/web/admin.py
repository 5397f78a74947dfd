"""/admin: pages for operators with the data and the actions of `flask tasks`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson
from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_babel import ngettext
from flask_login import current_user

from microblog.accounts.decorators import operator_required
from microblog.clock import utcnow
from microblog.jobs.models import Job, find_job, jobs_with_ids
from microblog.monitoring import actions, output, statistics
from microblog.monitoring.actions import BulkResult, apply_to_job, apply_to_jobs, find_actionable_jobs
from microblog.monitoring.job_queries import events_of, find_jobs, users_of
from microblog.monitoring.queues import known_queues
from microblog.monitoring.status import check_status
from microblog.monitoring.web import charts
from microblog.monitoring.web.forms import FilterForm
from microblog.notifications.pubsub import OPERATORS, RESYNC
from microblog.notifications.sse import event_stream
from microblog.pagination import requested_page
from microblog.security import referring_path
from microblog.taskqueue import states

bp = Blueprint("admin", __name__, url_prefix="/admin")

PAGE_SIZE = 50  # jobs
TIMEOUT = 1.0  # seconds that a worker has to reply
PREVIEW_SIZE = 5  # matching jobs on the confirmation page
MAX_FAILURE_GROUPS = 5  # on the page


@bp.before_request
@operator_required
def _only_operators() -> None:
    """Abort with 404 unless the user is an operator."""


@bp.get("/tasks")
def tasks() -> ResponseReturnValue:
    """Show charts, groups of failures, and the jobs that match the form; with ``part=list``, the jobs only."""
    form = FilterForm(request.args)
    valid = form.validate()
    page = find_jobs(form.filters(), requested_page()._replace(size=PAGE_SIZE), form.order_by) if valid else None
    return render_template(
        "admin/tasks.html",
        form=form,
        known_queues=known_queues(),
        known_tasks=actions.known_tasks(),
        page=page,
        users=users_of(page.jobs) if page else {},
        period=_period(),
        **(_trends() if request.args.get("part") != "list" else {}),
        **_common(),
    ), 200 if valid else 422


@bp.get("/status")
def status() -> ResponseReturnValue:
    """Show workers, queues and the schedule. Takes as long as the slowest reply of a worker."""
    return render_template("admin/status.html", status=check_status(TIMEOUT), states=states, **_common())


@bp.get("/stream")
def stream() -> ResponseReturnValue:
    """Stream the changes of all tasks. The first event is RESYNC: a page reloads the changes that it has missed."""
    return event_stream(current_user.id, [OPERATORS], lambda: [RESYNC])


@bp.get("/tasks/<task_id>")
def job(task_id: str) -> ResponseReturnValue:
    """Show all details of a job."""
    found = _job(task_id)
    return render_template(
        "admin/job.html",
        job=found,
        user=users_of([found]).get(found.root.user_id),
        events=events_of(found),
        **_common(),
    )


@bp.post("/tasks/<task_id>/<any(cancel, retry):action>")
def apply_action(task_id: str, action: str) -> ResponseReturnValue:
    """Cancel or retry one job."""
    outcome = apply_to_job(action, _job(task_id))
    assert outcome.job is not None  # noqa: S101 - for the type checker
    flash(f"{outcome.job.root.description}: {outcome.message}", "success" if outcome.done else "warning")
    if action == "retry" and outcome.done:
        return redirect(url_for("admin.job", task_id=outcome.job.id))
    return _back()


@bp.post("/tasks/selected/<any(cancel, retry):action>")
def apply_to_selected(action: str) -> ResponseReturnValue:
    """Cancel or retry the selected jobs."""
    chosen = request.form.getlist("job")[:PAGE_SIZE]
    if not chosen:
        flash(_("No job was chosen. Tick some first."), "warning")
        return _back()
    _flash_result(action, apply_to_jobs(action, chosen))
    return _back()


@bp.route("/tasks/all/<any(cancel, retry):action>", methods=["GET", "POST"])
def apply_to_matching(action: str) -> ResponseReturnValue:
    """Cancel or retry all matching jobs: GET returns a confirmation page with their number, POST does it.

    Jobs created after the confirmation page was rendered are not affected, even if they match.
    """
    form = FilterForm(request.args)
    if not form.validate():
        abort(400, _("This address does not say which jobs are meant. Start from the list."))
    until = _until() if request.method == "POST" else utcnow()
    chosen = find_actionable_jobs(action, form.filters(until), until)
    if request.method == "POST":
        _flash_result(action, apply_to_jobs(action, chosen))
        return redirect(url_for("admin.tasks", **form.address()))
    first = jobs_with_ids(chosen[:PREVIEW_SIZE])
    return render_template(
        "admin/confirm.html",
        action=action,
        form=form,
        count=len(chosen),
        first=first,
        users=users_of(first),
        until=until,
        most=actions.MAX_BULK_JOBS,
        **_common(),
    )


@bp.app_template_filter()
def format_json(value: Any) -> str:
    """Return `value` as readable JSON, on one line if it is short."""
    line = orjson.dumps(value, default=str)
    return (line if len(line) <= 100 else orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2)).decode()


def _common() -> dict[str, Any]:
    return {"duration": output.format_duration, "timedelta": timedelta, "now": utcnow()}


def _period() -> str:
    """Return the period of the charts: a name in charts.PERIODS."""
    period = request.args.get("period", "day")
    if period not in charts.PERIODS:
        abort(400, _("There are charts of a day, a week and a month."))
    return period


def _trends() -> dict[str, Any]:
    """Return the charts, and the groups of failures of the last day only, since this reads each failure."""
    return {
        "charts": charts.charts_of(charts.latest_buckets(charts.PERIODS[_period()])),
        "failure_groups": statistics.group_failures(utcnow() - charts.PERIODS["day"].length)[:MAX_FAILURE_GROUPS],
    }


def _job(task_id: str) -> Job:
    return find_job(task_id) or abort(404, _("There is no such task."))


def _until() -> datetime:
    """Return the time at which the submitted confirmation page was rendered."""
    try:
        until = datetime.fromisoformat(request.form["until"])
        if until.tzinfo is None or until > utcnow():
            raise ValueError
    except (KeyError, ValueError):
        abort(400, _("This form is not one of ours. Start from the list."))
    return until


def _flash_result(action: str, result: BulkResult) -> None:
    done = {
        "cancel": ngettext("%(num)s job was cancelled.", "%(num)s jobs were cancelled.", result.done),
        "retry": ngettext("%(num)s job is tried again.", "%(num)s jobs are tried again.", result.done),
    }[action]
    if not result.refused:
        flash(done, "success")
        return
    why = "; ".join(f"{outcome.job.id}: {outcome.message}" for outcome in result.examples if outcome.job)
    refused = ngettext("%(num)s was not: %(why)s", "%(num)s were not: %(why)s", result.refused, why=why)
    flash(f"{done} {refused}", "warning")


def _back() -> ResponseReturnValue:
    return redirect(referring_path() or url_for("admin.tasks"))
