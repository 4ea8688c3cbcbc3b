"""What a Nix binary cache is made of: hashes, store paths, narinfo, signatures, NARs, and how they are fetched."""
