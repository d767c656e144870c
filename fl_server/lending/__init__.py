"""The lender: a process of its own, with its own keys and book."""
