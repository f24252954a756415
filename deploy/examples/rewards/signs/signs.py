"""The five rewards of the signs example behind a server: what they answer is what marble's built-in ones do, whose program they ask.

    python proto/python/marble_reward.py serve deploy/examples/rewards/signs/signs.py --listen 127.0.0.1:8001
"""
from marble_reward import reward
from marble_scorer import Scorer

scorer = Scorer()


def declare(name, low, high):
    @reward(name, range=(low, high), images="raw")
    def score(images, prompts, metadata):
        return scorer.score(name, [(image.width, image.height, image.data) for image in images], prompts)


for name in ("ocr", "count", "color", "clean"):
    declare(name, 0, 1)
declare("jpeg", -1000, 0)
