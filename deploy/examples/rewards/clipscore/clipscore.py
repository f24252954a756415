"""CLIPScore as DiffusionNFT and MARBLE score it: the cosine of CLIP ViT-L/14's embeddings, about 0.24 to 0.29 for SD3.5 Medium."""
import os

import torch
import torchvision.transforms.v2.functional as transforms
from marble_reward import device, reward
from transformers import CLIPModel, CLIPTokenizer

MODEL = os.environ.get("CLIPSCORE_MODEL", "openai/clip-vit-large-patch14")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

tokenizer = CLIPTokenizer.from_pretrained(MODEL)
model = CLIPModel.from_pretrained(MODEL).float().eval().to(device())
SIDE = model.config.vision_config.image_size


def pixels(image):
    """The released code resizes tensors of floats, bilinear and antialiased: not the bicubic of CLIP's own processor."""
    tensor = torch.from_numpy(image).to(device()).permute(2, 0, 1) / 255
    tensor = transforms.resize(tensor, [SIDE], transforms.InterpolationMode.BILINEAR, antialias=True)
    return transforms.normalize(transforms.center_crop(tensor, [SIDE, SIDE]), MEAN, STD)


def unit(found):
    """transformers 5 returns an object, older ones the tensor."""
    return torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)


@reward("clipscore", range=(-1, 1), batch=32)
@torch.inference_mode()
def clipscore(images, prompts, metadata):
    texts = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").to(device())
    seen = unit(model.get_image_features(torch.stack([pixels(image) for image in images])))
    return (seen * unit(model.get_text_features(**texts))).sum(-1)
