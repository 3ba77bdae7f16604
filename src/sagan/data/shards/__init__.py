"""Data larger than a disk: tar shards, local or remote, behind the interface of the packed store."""
