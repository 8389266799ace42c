"""Benchmarks, each with its raw floor in the same run. `make bench` runs them."""
