"""HPS v2.1 as DiffusionNFT and MARBLE score it: the cosine without a scale, about 0.20 to 0.36 for SD3.5 Medium."""
import os

import torch
import torchvision.transforms.v2.functional as transforms
from hpsv2.src.open_clip import create_model, get_tokenizer
from marble_reward import device, reward

FOLDER = os.environ.get("HPS_FOLDER", "weights")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE = 224

model = create_model("ViT-H-14", precision="fp32", device=device(), jit=False, output_dict=True)
state = torch.load(os.path.join(FOLDER, "HPS_v2.1_compressed.pt"), map_location="cpu", weights_only=True)["state_dict"]
model.load_state_dict(state)  # all of it: the CLIP weights that it was trained from need not be loaded first
model.eval()
tokenizer = get_tokenizer("ViT-H-14")


def pixels(image):
    """The longer side to 224, bicubic, antialiased and not clamped; zeros around, before the colours are normalised."""
    tensor = torch.from_numpy(image).to(device()).permute(2, 0, 1) / 255
    scale = SIDE / max(tensor.shape[1:])
    height, width = (round(n * scale) for n in tensor.shape[1:])
    tensor = transforms.resize(tensor, [height, width], transforms.InterpolationMode.BICUBIC, antialias=True)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    tensor = transforms.pad(tensor, [left, top, SIDE - width - left, SIDE - height - top])
    return transforms.normalize(tensor, MEAN, STD)


@reward("hps", range=(-1, 1), batch=32)
@torch.inference_mode()
def hps(images, prompts, metadata):
    found = model(torch.stack([pixels(image) for image in images]), tokenizer(prompts).to(device()))
    return (found["image_features"] * found["text_features"]).sum(-1)  # both have length 1
