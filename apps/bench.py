"""Measure kresnets against its peers, alternating: python apps/bench.py step (or serving, soak, finetune, search, ...)

The command lies in the folder `bench` beside, which Python takes for `import bench` before this file.
"""

import _common
from bench.__main__ import main

if __name__ == "__main__":
    _common.run(main)
