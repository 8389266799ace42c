"""What a measurement can end in, each with one plain line.

BenchError
├── AdapterError     an adapter cannot be had, or cannot do what a profile asks
├── TargetError      the server cannot be reached, or refuses before the load has begun
├── Worthless        the load was made, and its figures say nothing
├── WorkerFailed     one of several processes failed (processes.py)
└── PlotError        the picture cannot be drawn (plot.py)
"""


class BenchError(Exception):
    """The root."""


class AdapterError(BenchError):
    """There is no such adapter, it is not one, or it cannot do what is asked."""


class TargetError(BenchError):
    """The server cannot be reached, or does not let us in."""


class Worthless(BenchError):
    """A run whose figures say nothing."""
