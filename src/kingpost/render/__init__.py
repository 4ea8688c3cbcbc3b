"""Topology in, files out. Deterministic, and never a secret among them."""
