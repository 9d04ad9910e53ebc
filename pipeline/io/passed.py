"""What a listing does not take, by reason, so that every plan can say it."""


class PassedOver:
    """Counts and first names by reason."""

    _NAMES = 3  # shown of each reason

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}

    def add(self, reason: str, *found: str) -> None:
        """`reason` is a plural, such as 'files of unknown ending'."""
        for name in found:
            count, names = self._found.get(reason, (0, []))
            if len(names) < self._NAMES or name < names[-1]:
                names = sorted([*names, name])[: self._NAMES]
            self._found[reason] = count + 1, names

    def clear(self) -> None:
        self._found.clear()

    def lines(self) -> list[str]:
        """One line in all, or none: 'left out: files of unknown ending: 4 (a.txt, b.txt, c.txt, ...)'."""
        parts = [
            f"{reason}: {count} ({', '.join(names)}{', ...' * (count > len(names))})"
            for reason, (count, names) in sorted(self._found.items())
        ]
        # A name that is no UTF-8 could not be printed.
        return [f"left out: {'; '.join(parts)}".encode(errors="replace").decode()] if parts else []
