"""The commands, a module each; what they share is a `Session`."""
