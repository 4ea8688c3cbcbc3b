"""The command line: one file per command; arguments in, presentation out, no logic."""
