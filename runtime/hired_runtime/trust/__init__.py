"""Bundles that are shipped: keys, signatures, a cache of hashes, one file to send. docs/trust.md says what for."""
