"""Bring a broken Nix store back, without Nix, without loss.

Standard library only, Python >= 3.9, no import from the rest of kingpost and only relative imports: the
folder also ships as one file that runs where Nix and every Python package are gone.
"""
