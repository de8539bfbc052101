"""`python -m ddad`, which is also how a launcher starts several processes: `torchrun
--nproc_per_node 2 -m ddad train ...`.
"""
import os
import sys

from .cli import main
from .runtime.processes import is_main

if __name__ == "__main__":
    if not is_main():
        # bars from one process only; tqdm reads this when it is imported
        os.environ["TQDM_DISABLE"] = "1"
    sys.exit(main())
