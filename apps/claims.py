"""Put a claim about residual networks or transfer to the test: python apps/claims.py degradation (or list, or all)

The command lies in the folder `claims` beside, which Python takes for `import claims` before this file.
"""

import _common
from claims.__main__ import main

if __name__ == "__main__":
    _common.run(main)
