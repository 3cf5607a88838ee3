"""The entrypoint `flask-migrate`: runs migration commands in containers."""

__version__ = "0.1.0"
