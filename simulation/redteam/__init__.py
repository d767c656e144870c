"""Attacks on our own system: the mechanism audit, uniformity of masked bytes, poisoning (spec 13.12)."""
