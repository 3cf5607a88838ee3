"""Databases: where they are, how to connect, what their errors mean, and when they are ready."""
