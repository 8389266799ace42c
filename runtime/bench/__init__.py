"""Load from outside, through the public API: what `riverrun bench` and the benchmarks drive a server with."""
