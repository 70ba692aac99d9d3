"""A Hugging Face image processor's parameters, applied to pixels that are decoded and resized already."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.captioner import Pixels, Preprocessing

# These resize, perhaps crop, and normalise; what is left of that after decoding is one line of arithmetic.
_PLAIN = ("BitImage", "BlipImage", "CLIPImage", "DeiTImage", "SiglipImage", "ViTImage")
_OTHER_SIDE = 448
"""Input of models that take pictures of any size: enough to see everyday things by."""


class PixelInputs:
    """Makes a model's picture tensors of uint8 pixels."""

    def __init__(self, processor: Any) -> None:
        """Take an image processor of transformers."""
        self._processor = processor
        self._plain = type(processor).__name__.startswith(_PLAIN) and bool(processor.do_resize)
        self.preprocessing = _preprocessing(processor, self._plain)
        self.whole = {"do_image_splitting": False} if hasattr(processor, "do_image_splitting") else {}
        """Tells a processor that would cut pictures into tiles to take them whole."""

    def __call__(self, images: Pixels, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Map uint8 (n, height, width, 3) to what the model's ``generate`` takes."""
        if self._plain:
            return {"pixel_values": self._normalised(images, device, dtype)}
        # One at a time, since some processors take a list for the pictures of one conversation.
        parts = [self.by_processor(image) for image in images]
        joined = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}
        return {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in joined.items()
        }

    def by_processor(self, image: Pixels) -> dict[str, Tensor]:
        """Have the processor itself turn one picture into tensors."""
        made = self._processor(images=[Image.fromarray(image)], return_tensors="pt", **self.whole)
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    def _normalised(self, images: Pixels, device: torch.device, dtype: torch.dtype) -> Tensor:
        processor = self._processor
        values = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()
        if processor.do_rescale:
            values = values * processor.rescale_factor
        if processor.do_normalize:
            mean, std = (torch.tensor(v, device=device) for v in (processor.image_mean, processor.image_std))
            values = (values - mean[:, None, None]) / std[:, None, None]
        return values.to(dtype).contiguous()


def _preprocessing(processor: Any, plain: bool) -> Preprocessing:
    resample = Image.Resampling(int(getattr(processor, "resample", None) or 3)).name.lower()
    size, crop = _sides(processor, "size"), _sides(processor, "crop_size")
    cropping = plain and bool(getattr(processor, "do_center_crop", False)) and crop is not None
    if cropping and crop is not None:
        return Preprocessing(*crop, resample, "crop")
    width, height = size or (_OTHER_SIDE, _OTHER_SIDE)
    return Preprocessing(width, height, resample)


def _sides(processor: Any, name: str) -> tuple[int, int] | None:
    """Return (width, height) where a processor's size is fixed or says the shorter side in pixels."""
    size = getattr(processor, name, None)
    sides = dict(size) if size is not None else {}
    if sides.get("height") and sides.get("width"):
        return int(sides["width"]), int(sides["height"])
    short = sides.get("shortest_edge")
    # Larger values count the pixels of the whole picture (Qwen2-VL).
    return (
        (int(short), int(short)) if short and int(short) <= 1024 and not sides.get("longest_edge") else None
    )
