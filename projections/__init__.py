"""Folding and reading: one file a read model, the worker that feeds them, checkpoints, queries, verification."""
