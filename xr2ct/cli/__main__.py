"""`python -m xr2ct.cli`, for torchrun and srun."""

import sys

from xr2ct.cli import main

sys.exit(main())
