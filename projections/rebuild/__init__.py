"""Rebuilding read models from archive and log, beside those that are in force, while traffic runs."""
