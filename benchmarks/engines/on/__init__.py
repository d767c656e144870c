"""Programs that run inside a peer's own environment: NumPy and that peer, nothing of PocketScore."""
