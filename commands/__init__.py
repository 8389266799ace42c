"""Deciding: command types with their handlers, the partition writer, the repository, routing.

The way of a command: `dispatcher` (to the partition's owner) → `writer` (decide, group, append, ack) → log.
`conversations`, `messages` and `users` hold the commands; `repository` loads aggregates, `snapshots` makes that short.
"""
