"""Callbacks for any `model.fit`: unfreezing in stages, and a learning rate for each group.

In any order and combination with each other and with Keras's own (those that write logs, such as CSVLogger, come
after, or they do not see what these add).
"""

from kresnets.callbacks.layerwise import LayerwiseLearningRate as LayerwiseLearningRate
from kresnets.callbacks.progress import Progress as Progress
from kresnets.callbacks.schedule import Plateau as Plateau
from kresnets.callbacks.schedule import Schedule as Schedule
from kresnets.callbacks.unfreezing import StagedUnfreezing as StagedUnfreezing
