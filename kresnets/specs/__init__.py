"""Every architecture as a frozen row of data.

A network is a `ResNetSpec` or an `InceptionSpec`; a variant is the same row with other values, never another function.
`SPECS` holds the rows of the public builders by their names; `dataclasses.replace(SPECS["ResNet50D"], ...)` makes a row
of one's own for `kresnets.build`.
"""

from kresnets.specs import inception, resnet
from kresnets.specs.inception import Conv, InceptionSpec, Mix, Pool, Residual, swap
from kresnets.specs.resnet import ResNetSpec
from kresnets.specs.row import Spec

__all__ = ["SPECS", "Conv", "InceptionSpec", "Mix", "Pool", "Residual", "ResNetSpec", "Spec", "swap"]

SPECS = {row.name: row for row in (*resnet.ROWS, *inception.ROWS)}
