"""PickScore v1 as DiffusionNFT and MARBLE score it: exp(logit_scale) * cosine / 26, about 0.79 to 0.92 for SD3.5 Medium."""
import os

import torch
from marble_reward import device, reward
from transformers import AutoModel, AutoProcessor

MODEL = os.environ.get("PICKSCORE_MODEL", "yuvalkirstain/PickScore_v1")
# The model's own folder has no processor that it was trained with; this one is the CLIP-H that it began from.
PROCESSOR = os.environ.get("PICKSCORE_PROCESSOR", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")

processor = AutoProcessor.from_pretrained(PROCESSOR, use_fast=False)
model = AutoModel.from_pretrained(MODEL).float().eval().to(device())


def unit(found):
    """transformers 5 returns an object, older ones the tensor."""
    return torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)


@reward("pickscore", images="pil", batch=32)
@torch.inference_mode()
def pickscore(images, prompts, metadata):
    pixels = processor(images=images, return_tensors="pt").to(device())
    texts = processor(text=prompts, padding=True, truncation=True, max_length=77, return_tensors="pt").to(device())
    seen, read = unit(model.get_image_features(**pixels)), unit(model.get_text_features(**texts))
    return model.logit_scale.exp() * (seen * read).sum(-1) / 26
