"""Engines that train many phones: the same numbers at different speeds."""
