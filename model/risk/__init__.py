"""The risk model: schema, encoding, network, calibration, score, export."""
