"""`python -m simulation.engine`: one line that says whether the compiled kernel is there."""

import argparse

from simulation.engine.choice import choose

if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m simulation.engine", description=__doc__).parse_args()
    print(f"PocketScore engine: {choose()[1]}")
