"""Verdicts presented: words for a terminal, JUnit for GitLab, Prometheus metrics, the ledger's history."""
