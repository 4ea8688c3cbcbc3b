"""`python -m kingpost`."""

from kingpost.cli.main import console

console()
