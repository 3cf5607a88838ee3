"""What the run was told: each setting declared once, read from flag, variable, file or default."""
