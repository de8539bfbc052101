"""`python -m ddad`, which is also how a launcher starts several processes: `torchrun --nproc_per_node 2 -m ddad train ...`."""
import os
import sys

from .cli import main
from .distributed import main as is_main

if __name__ == "__main__":
    if not is_main():
        os.environ["TQDM_DISABLE"] = "1"          # bars from one process only; tqdm reads this when it is imported
    sys.exit(main())
