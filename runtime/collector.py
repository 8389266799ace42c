"""Python's cyclic garbage collector, told what kind of process this is."""

import gc

YOUNG_MAX = 50_000  # allocations between two looks at the youngest: ours form few cycles, so few looks are needed


def spare_the_collector() -> None:
    """Call once, when everything is loaded. What lives now lives as long as the process and is never looked at again.

    Without it a busy writer spent 11 % of its time here (the heap of the libraries is large).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)
