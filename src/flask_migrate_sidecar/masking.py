"""Hides passwords, in whatever spelling and wherever in a line of the log they stand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from .urls import secrets as url_secrets

if TYPE_CHECKING:
    from .settings import Settings

MASK = "***"
# The password of a URL in free text, up to the last @ before the next space or quote.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@'\"]*):([^\s'\"]*)@(?=[^@\s'\"]*)")
_WORD = re.compile(r"[A-Za-z]+|[0-9]+|.{1,5}", re.DOTALL)
# Variables whose value is a password; some images have switches with such names.
_PASSWORD_VARIABLE = re.compile(r"(PASSWORD|PASSWD|_PASS)$", re.IGNORECASE)
_SWITCHES = frozenset({"", "0", "1", "yes", "no", "true", "false"})
_QUERY_PASSWORD = re.compile(r"(?i)\b(password|passwd|sslpassword)=([^\s&;'\"]+)")


class Secrets:
    """Texts that must not be seen, and how to hide them."""

    def __init__(self) -> None:
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these texts from now on, in every spelling."""
        for secret in secrets:
            self._spellings |= _spell(secret)
        # The longest first: one spelling can be a part of another.
        texts = sorted(self._spellings - {""}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_match, texts))) if texts else None

    def hide(self, value: Any) -> Any:
        """Give the value with every secret in it masked."""
        if isinstance(value, str):
            value = self._pattern.sub(MASK, value) if self._pattern else value
            value = _URL_PASSWORD.sub(rf"\1:{MASK}@", value)
            return _QUERY_PASSWORD.sub(rf"\1={MASK}", value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.hide(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no NaN
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.hide(describe(value))


def _spell(secret: str) -> set[str]:
    """List how a secret is written: percent-encoded, as Python shows it, in alembic.ini, in libpq.

    (Alembic doubles a percent sign in its file; libpq's connection strings escape with a
    backslash: PostgreSQL manual, 34.1.1.)
    """
    plain = {secret, quote(secret, safe=""), quote_plus(secret), quote(secret)}
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    return {*plain, *(text.replace("%", "%%") for text in plain), escaped, repr(secret)[1:-1]}


def _match(spelling: str) -> str:
    """Match a spelling anywhere, but a short or plain one only as a word of its own.

    `postgres` and `shop` are passwords as well as users, databases and parts of other words. (An
    escaped line break before it, as `repr()` shows one, begins a word too.)
    """
    if not _WORD.fullmatch(spelling):
        return re.escape(spelling)
    return rf"(?:(?<!\w)|(?<=\\[nrt])){re.escape(spelling)}(?!\w)"


def describe(value: object) -> str:
    """Give the text of an object; one that cannot tell its own must not cost the line."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - code of the application
        return f"<{type(value).__name__} without a text>"


secrets = Secrets()


def hide_settings(settings: Settings, environ: Mapping[str, str]) -> None:
    """Mask from now on the passwords in the settings and in the environment.

    The application prints at import what it was given, before its databases are known.
    """
    urls = [settings.database_url or "", *(text.partition("=")[2] for text in settings.bind_url)]
    urls += [text for text in environ.values() if "://" in text and "@" in text]
    for url in filter(None, urls):
        secrets.add(url_secrets(url))
    named = {text for name, text in environ.items() if _PASSWORD_VARIABLE.search(name)}
    secrets.add(text for text in named if text.lower() not in _SWITCHES)
