"""The protocols of binary caches: narinfo, NAR, signatures, Attic's API and tokens, S3."""
