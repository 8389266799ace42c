"""The log: subjects, topology, codec, cursor and ports.

`ports` says what a log, a bus and a node registry guarantee; `memory` and `jetstream` implement them behind
one contract suite (`tests/streams`). Only `runtime` names the JetStream implementation.
"""
