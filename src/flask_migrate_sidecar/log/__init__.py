"""The log: one JSON object a line, or lines for people, and nothing secret in either."""
