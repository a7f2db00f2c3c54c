"""The networks as code: their layers, residual and Inception trunks from a row, and what copies or rewrites a built
one."""
