"""What should be: the model, its loader, and what follows from it (contexts, routes, budgets, checks).

Pure: nothing here opens a socket or a file, but the loader.
"""
