"""Mistakes that `mypy --strict` must find; each line says which."""

from flask import Flask

from flask_migrate import Migrate, alembic_version, revision, upgrade

app = Flask(__name__)

Migrate(app, "sqlite://")  # type: ignore[arg-type]
Migrate(app, object())  # type: ignore[arg-type]
upgrade(sql="yes")  # type: ignore[arg-type]
upgrade(binds="users")  # type: ignore[call-arg]
text: str = revision()  # type: ignore[assignment]
four, of, three, numbers = alembic_version  # type: ignore[misc]
