"""Secure aggregation: sums of masked vectors, by two servers or by pairs of phones (spec 13)."""
