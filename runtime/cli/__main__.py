"""`python -m runtime.cli` is `riverrun`."""

from runtime.cli import main

main()
