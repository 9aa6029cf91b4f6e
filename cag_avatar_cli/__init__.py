"""The ``cag-avatar`` command."""
