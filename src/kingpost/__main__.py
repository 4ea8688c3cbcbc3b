"""`python -m kingpost`."""

import sys

from kingpost.cli.main import main

sys.exit(main())
