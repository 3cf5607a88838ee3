"""The entrypoint `flask-migrate`: runs migration commands in containers."""
