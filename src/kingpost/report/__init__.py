"""Verdicts for their readers: terminal, JSON, JUnit, Prometheus, HTML."""
