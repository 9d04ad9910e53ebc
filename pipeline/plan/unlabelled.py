"""Images without a label in a source where others have one: training on classes would refuse them, hours later."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipeline.errors import UsageError
from pipeline.io.passed import PassedOver
from pipeline.sources import Reader, Source, SourceImage
from pipeline.sources.detect import Reading
from pipeline.sources.source import Choices, Unlabelled


def settle_labels(reading: Reading, choices: Choices) -> Reading:
    """The same source with a decision about images without a label, which is taken while it is listed."""
    return replace(reading, source=SettledLabels(reading.source, choices.unlabelled))


@dataclass(frozen=True)
class SettledLabels:
    """A source with a decision about its images without a class, a `labels` list or a label map."""

    source: Source
    unlabelled: Unlabelled
    _without: PassedOver = field(default_factory=PassedOver, init=False, repr=False, compare=False)

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def root(self) -> str:
        return self.source.root

    def images(self) -> Iterator[SourceImage]:
        """Raises UsageError as the source, and when images with and without a class meet under `fail`."""
        self._without.clear()
        num_images, num_without, with_class = 0, 0, False
        for image in self.source.images():
            if image.class_name is None and not image.labels and not image.label_file:
                num_without += 1
                self._without.add("images without a label", image.source)
                if self.unlabelled == "skip":
                    continue
            num_images += 1
            with_class |= image.class_name is not None
            yield image
        if num_without and not num_images:
            raise UsageError(f"no image of {self.root} has a label, so --unlabelled skip leaves none. Leave it out.")
        if self.unlabelled == "fail" and with_class and num_without:
            found = self._without.lines()[0].removeprefix("left out: ")
            raise UsageError(
                f"{self.root} holds images with a label, and {found}. Choose --unlabelled skip to leave these out, or "
                f"--unlabelled keep to store them without a class: training on classes then refuses the split, "
                f"training without labels takes it."
            )

    def class_names(self) -> tuple[str, ...] | None:
        return self.source.class_names()

    def notes(self) -> list[str]:
        return self.source.notes() + (self._without.lines() if self.unlabelled == "skip" else [])

    def reader(self) -> Reader:
        return self.source.reader()
