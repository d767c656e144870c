"""`python -m simulation.engine`: one line that says whether the compiled kernel is there."""

from simulation.engine.choice import choose

if __name__ == "__main__":
    print(f"PocketScore engine: {choose()[1]}")
