"""`python -m ldmkit` is the command line."""

import sys

from ldmkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
