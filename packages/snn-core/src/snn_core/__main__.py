"""`python -m snn_core` is the command `snn`."""

import sys

from snn_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
