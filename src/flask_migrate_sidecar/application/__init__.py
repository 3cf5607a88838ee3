"""The application: its packages, its import, its databases and its commands."""
