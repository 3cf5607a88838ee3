"""The process around a run: its output, its signals, its first and its last moments."""
