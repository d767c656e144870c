"""The compiled kernels: one call a round, phones trained one after the other in the processor's nearest memory."""
