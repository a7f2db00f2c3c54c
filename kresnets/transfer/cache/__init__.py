"""The frozen part of a network, computed once: where a model can be cut, what is kept of its lower half, and the
training of the upper half on that."""

from kresnets.transfer.cache.features import FeatureCache as FeatureCache
