"""The coordinator, the lender's intake and the reviewer's bench."""
