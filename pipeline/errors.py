"""The two ways a command can refuse. Both carry one paragraph: the value seen, the place, and what to change."""


class UsageError(Exception):
    """The request itself is wrong (a path, a name, a combination of settings). The command exits with 2."""


class DataError(Exception):
    """The request is fine and the data is not (an unreadable image, a damaged shard). The command exits with 1."""
