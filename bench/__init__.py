"""The benchmark: ours and the peers in turn, on the same arrays and weights."""
