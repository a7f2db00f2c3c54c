"""The frozen part of a network, computed once: where a model can be cut, what is kept of its lower half, and the
training of the upper half on that.

Which layers: `cut.find_cut`. Whether at all, and in memory or a folder: `choice`. Which stages gain by it: `fit`. What
is kept: `features`.
"""

from kresnets.transfer.cache.features import FeatureCache as FeatureCache
