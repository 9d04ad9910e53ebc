"""What was read, in lines for people, so that a wrong reading is seen before an hour of work."""

from pipeline.errors import shorten
from pipeline.sources.detect import Reading
from pipeline.sources.ilsvrc import diagnosis

from .plan import Plan


def source_lines(reading: Reading, plan: Plan, *, whole: bool) -> list[str]:
    """The source with its images and classes, its splits, columns and masks, and everything passed over. `whole`: the
    plan holds all images of the split, so that counts which are known (ILSVRC2012) can be asked for.
    """
    counts = plan.class_counts()
    labelled = [count for count in counts.values() if count]
    fewest, most = min(labelled, default=0), max(labelled, default=0)
    of_each = f" ({f'{fewest} to ' if fewest < most else ''}{most} of each)" if labelled else ""
    kinds = f"{len(plan.classes)} classes{of_each}" if plan.classes else "no classes"
    lines = [f"source   {reading.source.kind} at {reading.source.root}: {plan.num_samples} images of {kinds}"]
    for text in filter(None, (diagnosis(plan.split, counts) if whole else None, _absent(counts), *reading.notes())):
        heading, _, rest = text.partition(" ")
        known = heading.rstrip(":") in ("splits", "columns", "masks")
        lines.append(f"{heading.rstrip(':'):<9}{rest.lstrip()}" if known else f"note     {text}")
    return lines


def _absent(counts: dict[str, int]) -> str | None:
    """A class without an image may be a download that was cut, or a split that lacks it."""
    absent = [name for name, count in counts.items() if not count]
    if not absent or len(absent) == len(counts):
        return None
    return f"{len(absent)} of {len(counts)} classes have no image in this split: {shorten(absent)}"
