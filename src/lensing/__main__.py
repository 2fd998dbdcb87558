"""`python -m lensing` is the command `lensing`."""

import sys

from lensing.cli import main

if __name__ == "__main__":
    sys.exit(main())
