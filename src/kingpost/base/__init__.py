"""What every layer stands on: processes, HTTP, verdicts, errors, the ledger and units.

Nothing here knows Nix, Attic or a topology.
"""
