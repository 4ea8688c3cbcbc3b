"""kingpost: one typed topology for a self-hosted Nix platform."""

__version__ = "0.1.0"
