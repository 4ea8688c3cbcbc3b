"""Where bytes come from: binary caches, other machines, other disks, and rebuilding."""
