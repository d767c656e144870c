"""Parts of `benchmarks/engine.py`: the workload, our engines, the peers, their timing and the table."""
