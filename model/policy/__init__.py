"""Dated, cited jurisdiction packs and the one function that applies them."""
