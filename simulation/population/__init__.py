"""A synthetic population: latents, raw events, repayment outcomes, each phone reproducible alone."""
