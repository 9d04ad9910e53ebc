"""Images without a label in a source where others have one: training on classes would refuse them, hours later."""

from collections.abc import Iterator

from pipeline.errors import UsageError
from pipeline.io.passed import PassedOver
from pipeline.sources import Source, SourceImage
from pipeline.sources.source import Unlabelled

_WITHOUT = "images without a label"


def settled_images(source: Source, unlabelled: Unlabelled) -> Iterator[SourceImage]:
    """The images of a source, with a decision about those without a class, a `labels` list or a label map.

    Raises UsageError as the source, and when images with and without a class meet under `fail`.
    """
    without = PassedOver()
    num_images, num_without, with_class = 0, 0, False
    for image in source.images():
        if image.class_name is None and not image.labels and not image.label_file:
            num_without += 1
            without.add(_WITHOUT, image.source)
            if unlabelled == "skip":
                source.passed.add(_WITHOUT, image.source)
                continue
        num_images += 1
        with_class |= image.class_name is not None
        yield image
    if num_without and not num_images:
        raise UsageError(f"no image of {source.root} has a label, so --unlabelled skip leaves none. Leave it out.")
    if unlabelled == "fail" and with_class and num_without:
        found = without.lines()[0].removeprefix("left out: ")
        raise UsageError(
            f"{source.root} holds images with a label, and {found}. Choose --unlabelled skip to leave these out, or "
            f"--unlabelled keep to store them without a class: training on classes then refuses the split, "
            f"training without labels takes it."
        )
