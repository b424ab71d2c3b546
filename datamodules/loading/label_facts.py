"""What a data module says of its labels."""


class LabelFacts:
    """Names of labels, of images and of captions; a data set that has some says so."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of `Example.labels`; empty when there are none."""
        return ()

    @property
    def num_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the labels that captions have (`Example.conditions`), such as emotions; empty: they have none."""
        return ()

    @property
    def num_conditions(self) -> int:
        """Number of labels that captions have."""
        return len(self.condition_names)
