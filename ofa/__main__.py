"""`python -m ofa COMMAND`: the console command where it is not on the path, e.g. under `torchrun -m ofa`."""

import sys

from ofa.common.cli import main

if __name__ == "__main__":
    sys.exit(main())
