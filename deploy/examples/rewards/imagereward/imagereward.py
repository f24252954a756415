"""ImageReward v1.0 as DiffusionNFT and MARBLE score it: its own normalised score, about -0.6 to 1.5 for SD3.5 Medium."""
import os

import ImageReward
import torch
from marble_reward import device, reward

model = ImageReward.load(os.environ.get("IMAGEREWARD_MODEL", "ImageReward-v1.0"), device=device(),
                         download_root=os.environ.get("IMAGEREWARD_FOLDER")).float().eval()


@reward("imagereward", images="pil", batch=16)
@torch.inference_mode()
def imagereward(images, prompts, metadata):
    """Each prompt with its own image. (inference_rank on lists scores every prompt with every image and drops all but the diagonal.)"""
    pixels = torch.stack([model.preprocess(image) for image in images]).to(device())
    texts = model.blip.tokenizer(prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt").to(device())
    seen = model.blip.visual_encoder(pixels)
    mask = torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device)
    read = model.blip.text_encoder(texts.input_ids, attention_mask=texts.attention_mask, encoder_hidden_states=seen,
                                   encoder_attention_mask=mask, return_dict=True).last_hidden_state[:, 0]
    return ((model.mlp(read) - model.mean) / model.std)[:, 0]
