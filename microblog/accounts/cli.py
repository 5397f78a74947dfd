"""``flask users``: list users, grant and revoke the operator role.

Exit codes: 0 success; 1 nothing to change; 2 usage error or unknown user; 3 the database is unavailable.
"""

from __future__ import annotations

from typing import Any

import click

from microblog.accounts.models import User
from microblog.cli import Commands, json_option, json_requested, print_json, print_output
from microblog.extensions import db
from microblog.notifications.pubsub import end_streams

EXIT_UNCHANGED, EXIT_USAGE = 1, 2  # exit codes; click also uses 2, for usage errors


users = Commands("users", help="List users, grant and revoke the operator role.")

_name = click.argument("name")


@users.command("promote")
@_name
@json_option
@click.pass_context
def promote(context: click.Context, name: str) -> None:
    """Grant a user the operator role: they can view and control the jobs of all users on /admin/tasks.

    \b
    Example:
      flask users promote susan
    """
    _set_role(context, name, True)


@users.command("demote")
@_name
@json_option
@click.pass_context
def demote(context: click.Context, name: str) -> None:
    """Revoke a user's operator role. Operator pages that they have open receive no further updates.

    \b
    Example:
      flask users demote susan
    """
    _set_role(context, name, False)


@users.command("list")
@click.option("--operators", "only_operators", is_flag=True, help="List only operators.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="Maximum number.")
@json_option
def list_users(only_operators: bool, limit: int) -> None:
    """List users by name, and mark accounts that are being deleted.

    \b
    Example: list the users who can control all jobs
      flask users list --operators
    """
    print_output(
        User.by_name(limit, only_operators=only_operators),
        _print_list,
        to_json=lambda listed: [_user_json(user) for user in listed],
        empty="There are no operators." if only_operators else "There are no users.",
    )


def _set_role(context: click.Context, name: str, is_operator: bool) -> None:
    user = User.with_username(name)
    if user is None:
        if json_requested():
            print_json(None)
        click.echo(f"{name}: no such user.", err=True)
        context.exit(EXIT_USAGE)
    changed, user_id = user.is_operator != is_operator, user.id
    user.is_operator = is_operator
    db.session.commit()
    if not is_operator:
        end_streams(user_id)
    when = "now" if changed else "already"
    role = f"an operator {when}" if is_operator else ("no longer an operator" if changed else "not an operator")
    print_output(
        user,
        lambda user: click.echo(f"{user.username}: {role}.", err=not changed),
        to_json=lambda user: _user_json(user) | {"done": changed},
    )
    if not changed:
        context.exit(EXIT_UNCHANGED)


def _print_list(listed: list[User]) -> None:
    width = max(len("NAME"), *(len(user.username) for user in listed))
    click.echo(f"{'NAME':{width}}  SINCE       ROLE")
    for user in listed:
        role = "is being deleted" if user.deleted_at else "operator" if user.is_operator else ""
        click.echo(f"{user.username:{width}}  {user.created_at:%Y-%m-%d}  {role}".rstrip())


def _user_json(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "email": user.email,
        "is_operator": user.is_operator,
        "created_at": user.created_at,
        "deleted_at": user.deleted_at,
    }
