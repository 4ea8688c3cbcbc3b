"""Probes and readers: the state of a running system in, verdicts out. Nothing here changes a system."""
