"""Clipping, protective noise, frozen mechanism descriptions and their accounting."""
