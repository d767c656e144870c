"""The second server of privacy mode `helper`: its own process, keys, store and ε ledger (spec 13.6)."""
