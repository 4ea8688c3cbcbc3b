"""Ways into a context: one file per kind, behind one interface."""
