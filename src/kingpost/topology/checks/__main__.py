"""`python -m kingpost.topology.checks > docs/checks.md` writes the reference."""

import sys

from kingpost.topology.checks.reference import markdown

sys.stdout.write(markdown())
