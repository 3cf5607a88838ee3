"""The history: what the code has, what databases hold of it, what a command does to them."""
