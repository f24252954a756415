"""A bridge to reward servers that speak pickle over HTTP, as those of flow_grpo (yifan123/reward-server: GenEval, DeQA) do. marble
speaks the Open Inference Protocol to this bridge; pickle stays between the bridge and that server.

Reading a pickle can run any code. This file reads the server's answer with an unpickler that knows no class but numpy's arrays
and numbers, so an answer can only hold data. What cannot be mended here: the other server unpickles whatever it is sent, so
whoever can reach its port can run code on it. Bind it to 127.0.0.1 beside this bridge, and let only the bridge be reached.

    BRIDGE_URL=http://127.0.0.1:18085 python marble_reward.py serve bridge.py --listen 0.0.0.0:8000 --token-file token

BRIDGE_KIND: geneval (default; scores and strict accuracy), deqa (`outputs`), prompts (`outputs`, for a server that wants prompts too).
"""
import io
import os
import pickle
import urllib.error
import urllib.request

from marble_reward import reward

URL = os.environ.get("BRIDGE_URL", "http://127.0.0.1:18085")
KIND = os.environ.get("BRIDGE_KIND", "geneval")
SECONDS = float(os.environ.get("BRIDGE_SECONDS", "120"))
MAX_ANSWER = 16 << 20
ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
           ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}


class DataOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"the answer holds {module}.{name}; expected numbers, texts, lists and dicts")
        return super().find_class(module, name)


def ask(images, prompts, metadata):
    """Sends JPEG files, as those servers expect; returns the answer's dict."""
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG")
        files.append(file.getvalue())
    question = {"images": files}
    if KIND == "geneval":
        question.update(meta_datas=metadata, only_strict=False)
    elif KIND == "prompts":
        question["prompts"] = prompts
    try:
        with urllib.request.urlopen(urllib.request.Request(URL, pickle.dumps(question)), timeout=SECONDS) as answer:
            data = answer.read(MAX_ANSWER + 1)
    except urllib.error.HTTPError as error:  # its body is the server's traceback
        raise ConnectionError(f"{URL} answered {error.code}: {error.read(2000).decode(errors='replace')[-300:]}") from None
    if len(data) > MAX_ANSWER:
        raise RuntimeError(f"{URL} answered with over {MAX_ANSWER} bytes")
    answer = DataOnly(io.BytesIO(data)).load()
    if not isinstance(answer, dict):
        raise RuntimeError(f"{URL} answered with {type(answer).__name__}; expected a dict")
    return answer


def column(answer, name):
    if name not in answer:
        raise RuntimeError(f"{URL} answered without {name!r}; it has: {', '.join(map(str, answer))}")
    return answer[name]


if KIND == "geneval":
    def asks_for_something(metadata):
        return [bool(m.get("include")) for m in metadata]

    def scored(images, prompts, metadata, name):
        """Prompts without GenEval's metadata are N/A; the server would fail on them."""
        kept = [i for i, yes in enumerate(asks_for_something(metadata)) if yes]
        scores = [(None, "no `include` in the metadata")] * len(images)
        if kept:
            found = column(ask([images[i] for i in kept], [prompts[i] for i in kept], [metadata[i] for i in kept]), name)
            if len(found) != len(kept):
                raise RuntimeError(f"{URL} answered with {len(found)} scores for {len(kept)} images")
            for i, value in zip(kept, found):
                scores[i] = float(value)
        return scores

    @reward("geneval", images="pil")  # below 0 where more than twice as many objects are found as asked for
    def geneval(images, prompts, metadata):
        return scored(images, prompts, metadata, "scores")

    @reward("geneval_strict", range=(0, 1), images="pil")
    def geneval_strict(images, prompts, metadata):
        return scored(images, prompts, metadata, "strict_rewards")
else:
    @reward(KIND, images="pil")
    def outputs(images, prompts, metadata):
        return column(ask(images, prompts, metadata), "outputs")
