"""Data sets larger than a disk: tar shards, local or remote, with the interface of the packed store."""
