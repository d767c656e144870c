"""The messages: one byte form, signatures, sealing, proofs, and what each message may hold."""
