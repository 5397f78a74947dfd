"""Forms that reset the password, and forms that change or delete an account after asking for the password."""

from __future__ import annotations

from typing import Any

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_login import current_user
from flask_wtf import FlaskForm
from wtforms import Field, PasswordField, StringField
from wtforms.validators import InputRequired, Length, ValidationError

from microblog.accounts.forms import AddressForm, NewPasswordForm, normalize_address
from microblog.accounts.models import MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME
from microblog.validators import Storable


class RequestLinkForm(FlaskForm):
    """Form that requests a link to reset the password."""

    email = StringField(
        _l("Email"),
        [InputRequired(_l("Enter your email address.")), Storable(), Length(max=MAX_EMAIL)],
        render_kw={"autocomplete": "email", "type": "email"},
    )

    def validate_email(self, field: Field) -> None:
        """Refuse an invalid address; normalize a valid one."""
        field.data = normalize_address(field.data)


class CurrentPasswordForm(FlaskForm):
    """Form field for the current password, which confirms the user's identity."""

    current_password = PasswordField(
        _l("Current password"),
        [InputRequired(_l("Enter your password.")), Storable(), Length(max=MAX_PASSWORD)],
        render_kw={"autocomplete": "current-password"},
    )

    def validate_current_password(self, field: Field) -> None:
        """Refuse any password but the user's."""
        if not current_user.check_password(field.data):
            raise ValidationError(_("This is not your password."))


class ChangePasswordForm(CurrentPasswordForm, NewPasswordForm):
    """Form for changing the password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.password.label.text = _("New password")
        self.password2.label.text = _("New password again")


class ChangeAddressForm(CurrentPasswordForm, AddressForm):
    """Form for changing the email address."""

    taken: Any = _l("There is an account with this address already. Choose another.")

    def validate_email(self, field: Field) -> None:
        """Refuse an invalid address, the current one, and one that belongs to another user."""
        if normalize_address(field.data).lower() == current_user.email.lower():
            raise ValidationError(_("This is your address already."))
        super().validate_email(field)


class DeleteAccountForm(CurrentPasswordForm):
    """Form for deleting the account, confirmed with the username and the password."""

    username = StringField(
        _l("Your username"),
        [InputRequired(_l("Type your username.")), Storable(), Length(max=MAX_USERNAME)],
        description=_l("To be sure that it is this account that you mean."),
        render_kw={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"},
    )

    def validate_username(self, field: Field) -> None:
        """Refuse any name but the user's."""
        if field.data.lower() != current_user.username.lower():
            raise ValidationError(_("This is not your username."))
