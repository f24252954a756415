"""GenEval as DiffusionNFT and MARBLE score it: Mask2Former (mmdet 2) finds objects, CLIP ViT-L/14 names their colours. `geneval` is
the mean over clauses, `geneval_strict` 1 where everything is right; N/A without `include` in the metadata."""
import os

import numpy
import open_clip
import torch
from marble_reward import device, reward
from mmdet.apis import inference_detector, init_detector
from PIL import Image

from rules import score

CONFIG = os.environ.get("GENEVAL_CONFIG", "mmdetection/configs/mask2former/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py")
WEIGHTS = os.environ.get("GENEVAL_WEIGHTS", "weights/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth")
COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
TEMPLATES = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}  # GenEval's for COCO's
SURE, SURE_TO_COUNT, MOST = 0.3, 0.9, 16

detector = init_detector(CONFIG, WEIGHTS, device=device())
classes = [NAMES.get(name, name) for name in detector.CLASSES]
clip, _, preprocess = open_clip.create_model_and_transforms("ViT-L-14", pretrained="openai", device=device())
clip.eval()
tokenizer = open_clip.get_tokenizer("ViT-L-14")
classifiers = {}


def classifier(name):
    """One direction for each colour of a kind of object: the mean of its sentences' embeddings."""
    if name not in classifiers:
        columns = []
        for color in COLORS:
            texts = tokenizer([template.format(color, name) for template in TEMPLATES]).to(device())
            mean = torch.nn.functional.normalize(clip.encode_text(texts), dim=-1).mean(0)
            columns.append(mean / mean.norm())
        classifiers[name] = torch.stack(columns, 1)
    return classifiers[name]


def find(result, tag):
    """class -> [(box, mask)], surest first, of what mmdet returned for one image."""
    boxes, masks = result if isinstance(result, tuple) else (result, None)
    sure, found = SURE_TO_COUNT if tag == "counting" else SURE, {}
    for index, name in enumerate(classes):
        order = numpy.argsort(boxes[index][:, 4])[::-1]
        kept = [i for i in order if boxes[index][i, 4] > sure][:MOST]
        if kept:
            found[name] = [(tuple(boxes[index][i, :4]), None if masks is None else masks[index][i]) for i in kept]
    return found


def judge(image, result, metadata):
    found = find(result, metadata.get("tag"))

    def colors(name, _):
        crops, grey = [], Image.new("RGB", image.size, "#999")
        for box, mask in found[name]:
            seen = image if mask is None else Image.composite(image, grey, Image.fromarray(mask))
            crops.append(preprocess(seen.crop(box)))
        features = torch.nn.functional.normalize(clip.encode_image(torch.stack(crops).to(device())), dim=-1)
        return [COLORS[i] for i in (features @ classifier(name)).argmax(1).tolist()]

    return score(metadata["include"], {name: [box for box, _ in objects] for name, objects in found.items()}, colors)


def judged(images, metadata):
    """(mean, right, why) or None for each image."""
    kept = [i for i, m in enumerate(metadata) if m.get("include")]
    answers = [None] * len(images)
    with torch.inference_mode():
        results = inference_detector(detector, [numpy.asarray(images[i]) for i in kept]) if kept else []
        for i, result in zip(kept, results):
            answers[i] = judge(images[i], result, metadata[i])
    return answers


NOT_ASKED = (None, "no `include` in the metadata")


@reward("geneval", images="pil", batch=16)
def geneval(images, prompts, metadata):
    return [(a[0], a[2]) if a else NOT_ASKED for a in judged(images, metadata)]


@reward("geneval_strict", range=(0, 1), images="pil", batch=16)
def geneval_strict(images, prompts, metadata):
    return [(float(a[1]), a[2]) if a else NOT_ASKED for a in judged(images, metadata)]
