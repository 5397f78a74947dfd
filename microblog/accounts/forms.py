"""Forms for signing up, signing in, resetting the password, and changing or deleting an account."""

from __future__ import annotations

from typing import Any

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_login import current_user
from flask_wtf import FlaskForm
from wtforms import BooleanField, Field, PasswordField, SelectField, StringField, TextAreaField
from wtforms.validators import EqualTo, InputRequired, Length, Regexp, ValidationError

from microblog import i18n
from microblog.accounts.models import MAX_ABOUT_ME, MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME, USERNAME, User
from microblog.validators import Storable, normalize_email, normalize_newlines

MIN_USERNAME = 3
MIN_PASSWORD = 8


class SignInForm(FlaskForm):
    """Form for signing in."""

    username = StringField(
        _l("Username or email"),
        [InputRequired(_l("Enter your username or your email address.")), Storable(), Length(max=MAX_EMAIL)],
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"},
    )
    password = PasswordField(
        _l("Password"),
        [InputRequired(_l("Enter your password.")), Storable(), Length(max=MAX_PASSWORD)],
        render_kw={"autocomplete": "current-password"},
    )
    remember_me = BooleanField(_l("Keep me signed in"))


class UsernameForm(FlaskForm):
    """Form field for a username that is not taken."""

    username = StringField(
        _l("Username"),
        [
            InputRequired(_l("Choose a username.")),
            Storable(),
            Length(MIN_USERNAME, MAX_USERNAME, _l("A username has %(min)d to %(max)d characters.")),
            Regexp(USERNAME, message=_l("Use letters without accents, digits, and the characters _ . - only.")),
        ],
        description=_l("3 to 64 letters, digits, or the characters _ . -"),
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"},
    )

    def validate_username(self, field: Field) -> None:
        """Refuse a username that another user has."""
        if User.with_username(field.data, include_deleted=True) not in (None, current_user):
            raise ValidationError(_("This username is taken. Choose another."))


class ChoiceField(SelectField):
    """An optional choice: if none is made, the form has the empty string and the row has NULL."""

    def process_data(self, value: str | None) -> None:
        super().process_data(value or "")


class PreferencesForm(FlaskForm):
    """Form for language and time zone."""

    locale = ChoiceField(_l("Language"), description=_l("Of the pages, and of the mails that you get."))
    timezone = ChoiceField(_l("Time zone"), description=_l("In which times are told."))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.locale.choices = [("", _("As my browser asks")), *i18n.languages().items()]
        self.timezone.choices = [("", _("That of my device")), *i18n.zones()]


class ProfileForm(UsernameForm, PreferencesForm):
    """Form for the public profile and the user's preferences."""

    about_me = TextAreaField(
        _l("About me"),
        [Storable(), Length(max=MAX_ABOUT_ME, message=_l("This has at most %(max)d characters."))],
        filters=[lambda text: normalize_newlines(text or "").strip()],
        description=_l("Up to %(max)d characters, for everybody to read.", max=MAX_ABOUT_ME),
        render_kw={"rows": 3, "dir": "auto"},
    )


class EmailForm(FlaskForm):
    """Form field for an email address that is not taken."""

    taken: Any = _l("There is an account with this address already. Sign in instead.")

    email = StringField(
        _l("Email"),
        [InputRequired(_l("Enter your email address.")), Storable()],
        description=_l("What you export is mailed here. Nobody else sees it."),
        render_kw={"autocomplete": "email", "type": "email"},
    )

    def validate_email(self, field: Field) -> None:
        """Normalize the address. Refuse an invalid address, and one that belongs to a user."""
        field.data = valid_email(field.data)
        if User.with_email(field.data, include_deleted=True) is not None:
            raise ValidationError(str(self.taken))


class NewPasswordForm(FlaskForm):
    """Form fields for a new password and its repetition."""

    password = PasswordField(
        _l("Password"),
        [
            InputRequired(_l("Choose a password.")),
            Storable(),
            Length(MIN_PASSWORD, MAX_PASSWORD, _l("A password has %(min)d to %(max)d characters.")),
        ],
        description=_l("At least 8 characters."),
        render_kw={"autocomplete": "new-password"},
    )
    password2 = PasswordField(
        _l("Password again"),
        [
            InputRequired(_l("Enter the password a second time.")),
            Storable(),
            EqualTo("password", _l("The two passwords differ.")),
        ],
        render_kw={"autocomplete": "new-password"},
    )


class SignUpForm(UsernameForm, EmailForm, NewPasswordForm):
    """Form for registration."""


def valid_email(text: str) -> str:
    """Return the normal form of an email address. Raises ValidationError, for the user to read, if it is invalid."""
    try:
        return normalize_email(text)
    except ValueError:
        raise ValidationError(_("This is no email address. One looks like susan@example.com.")) from None


class RequestLinkForm(FlaskForm):
    """Form that requests a link to reset the password."""

    email = StringField(
        _l("Email"),
        [InputRequired(_l("Enter your email address.")), Storable(), Length(max=MAX_EMAIL)],
        render_kw={"autocomplete": "email", "type": "email"},
    )

    def validate_email(self, field: Field) -> None:
        """Refuse an invalid address; normalize a valid one."""
        field.data = valid_email(field.data)


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


class ChangeEmailForm(CurrentPasswordForm, EmailForm):
    """Form for changing the email address."""

    taken: Any = _l("There is an account with this address already. Choose another.")

    def validate_email(self, field: Field) -> None:
        """Refuse an invalid address, the current one, and one that belongs to another user."""
        if valid_email(field.data).lower() == current_user.email.lower():
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
