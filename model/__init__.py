"""What every side must agree on: the risk model and the messages. Imports nothing by itself."""
