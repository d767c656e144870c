"""Simulated phones, tables as phones, engines and whole runs. Nothing imports this package."""
