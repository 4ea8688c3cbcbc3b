"""Plans and their execution: shown before, backed up, verified after, undone on request."""
