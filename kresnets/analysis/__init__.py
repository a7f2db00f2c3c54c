"""What a network costs: parameters, multiply-adds, depth and the memory of its activations, counted from its graph."""

from kresnets.analysis.alexnet import alexnet as alexnet
from kresnets.analysis.summary import Row as Row
from kresnets.analysis.summary import Summary as Summary
from kresnets.analysis.summary import summarize as summarize
