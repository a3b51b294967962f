"""`python -m clickvol` is the same as `clickvol`."""

import sys

from clickvol.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
