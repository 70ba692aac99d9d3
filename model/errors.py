"""What can go wrong inside the model package; the worker maps these to item codes."""


class ModelError(Exception):
    """Base of everything the model package raises on purpose."""


class CheckpointInvalid(ModelError):
    """The checkpoint is missing, tampered with or does not fit this code."""


class InvalidOptions(ModelError):
    """The captioner cannot decode with these options."""


class ModelOutOfMemory(ModelError):
    """A batch did not fit into the device's memory."""


class ImageError(ModelError):
    """Base of what can be wrong with one image."""


class UnsupportedImage(ImageError):
    """The bytes are not an image of a supported format."""


class CorruptImage(ImageError):
    """The image is truncated or damaged."""


class ImageTooLarge(ImageError):
    """The image has more pixels than the limit."""


class TrainingError(ModelError):
    """Training or evaluation input is unusable; the message says what to mend."""
