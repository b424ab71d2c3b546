"""Names of the rows beside a model's metrics. Importing this imports nothing else."""

# captions

CONSTANT = "constant caption"
WORDS = "word frequency"
STEPS = "word frequency by step"
STEPS_SAMPLED = "word frequency by step, sampled"
LANGUAGE = "language model of captions"
LANGUAGE_SAMPLED = "language model of captions, sampled"
SHUFFLED = "shuffled images"
NEAREST = "5 nearest images"
PREDICTED_CLASS = "predicted class, one caption"
TRUE_CLASS = "true class, one caption"
HUMAN = "leave-one-out human"
LANGUAGE_ONLY = "language-only baseline"
"""The baseline of the synthetic scenes: the best fixed caption."""
MODAL_TEMPLATE = "modal-template oracle"
"""Of the synthetic scenes: knows the scene, writes its most typical caption."""
UPPER_BOUND = "upper bound"
"""Of the synthetic scenes: knows the scene, draws a caption."""

BASELINES = (
    CONSTANT,
    WORDS,
    STEPS,
    STEPS_SAMPLED,
    LANGUAGE,
    LANGUAGE_SAMPLED,
    SHUFFLED,
    NEAREST,
    PREDICTED_CLASS,
)
"""Rows that a captioner should beat, in the order of printing; data sets of real images have these."""
UPPER_BOUNDS = (TRUE_CLASS, HUMAN)
"""Rows that say how far a score can be expected to go: a captioner may pass them."""

# labels

PRIOR = "label prior"
WORD_REGRESSION = "logistic regression on words"
FEATURE_REGRESSION = "logistic regression on features"
PREDICTED_CLASS_LABELS = "predicted class, its labels"
TRUE_CLASS_LABELS = "true class, its labels"

LABEL_BASELINES = (PRIOR, WORD_REGRESSION, FEATURE_REGRESSION, PREDICTED_CLASS_LABELS)
"""Rows that a classifier should beat, in the order of printing."""
LABEL_UPPER_BOUNDS = (TRUE_CLASS_LABELS,)
"""Rows that know more than a classifier does; it may pass them."""

# all

LOWER = (*BASELINES, LANGUAGE_ONLY, *LABEL_BASELINES)
"""Rows that a model should beat."""
UPPER = (*UPPER_BOUNDS, *LABEL_UPPER_BOUNDS, MODAL_TEMPLATE, UPPER_BOUND)
"""Rows that a model need not beat."""
