"""What options of several verbs mean: the device to use, token budgets."""

from pipeline.errors import UsageError


def token_budgets(text: str, default: int | None) -> list[int | None]:
    """'16,25' -> [16, 25]; '' -> [default]. ValueError for anything that is not a positive whole number."""
    if not text.strip():
        return [default]
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) < 1]
    if wrong:
        raise ValueError(f"--tokens is '{text}': '{wrong[0]}' is not a positive number. Write for example 16,25,36.")
    return [int(part) for part in parts]


def check_device(name: str) -> None:
    """UsageError for what is no name of a device on any machine."""
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind != "cuda" or not number.isdecimal())):
        raise UsageError(f"--device is '{name}': use auto, cpu, cuda, or cuda:1 for the second GPU.")


def pick_device(name: str) -> str:
    """'auto' -> cuda where there is one. UsageError for another name, and for a GPU that is not there."""
    check_device(name)
    import torch  # only here: options are checked before anything heavy is loaded

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no GPU here. Use --device cpu or auto.")
    if colon and int(number) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UsageError(f"--device {name}: torch sees {last + 1} GPUs here. Use cuda:0 to cuda:{last}.")
    return name
