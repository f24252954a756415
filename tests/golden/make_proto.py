#!/usr/bin/env python3
"""Records tests/golden/proto/*.json: what marble's codecs exchange with real servers, and what real clients send.

    make_proto.py BUILD [triton PYTHON] [mlserver PYTHON] [kserve PYTHON] [chat PYTHON] [openai PYTHON]

BUILD is a built folder, whose test_proto_golden makes the requests and reads the responses. Each PYTHON is that of a virtual
environment with nvidia-pytriton and numpy below 2 under the distribution's own /usr/bin/python3 (triton, which also has
tritonclient[http]), mlserver, kserve, litellm[proxy] (chat), or openai. Only the files of what is named are
written. The servers listen on 127.0.0.1 and are ended again.

unirl.json was recorded in the same way with the gateway of UniRL's reward service at commit 1a7b501, its workers replaced.

Every server scores alike: `scores` is the mean of an image's bytes / 255, `length` the number of characters of its prompt; a prompt
with "skip" is not applicable, one with "nan" scores NaN.
"""
import base64, contextlib, http.client, json, os, socket, struct, subprocess, sys, tempfile, time, zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "proto"
WIDTH, HEIGHT = 5, 4
PROMPTS = ["a red sign that says \"K7\"", "drei blaue Kreise, größer als ○", "skip this", "nan please"]
METADATA = ['{"count": 2}', None, "{}", '{"tag": "x"}']


def pixels(i):
    """The image of tests/proto_case.h."""
    return bytes((i * 53 + y * 17 + x * 5 + c * 29) % 256 for y in range(HEIGHT) for x in range(WIDTH) for c in range(3))


def png(i):
    rows = b"".join(b"\0" + pixels(i)[y * WIDTH * 3:(y + 1) * WIDTH * 3] for y in range(HEIGHT))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


# ---- what the servers run: this file again, in their environment ----

def score(image, prompt):
    """(score, length, valid, reason) of an array or a PNG file of this script."""
    if isinstance(image, (bytes, bytearray)):
        at = image.index(b"IDAT")
        size = struct.unpack(">I", image[at - 4:at])[0]
        rows = zlib.decompress(bytes(image[at + 4:at + 4 + size]))
        image = b"".join(rows[y * (WIDTH * 3 + 1) + 1:(y + 1) * (WIDTH * 3 + 1)] for y in range(HEIGHT))
        mean = sum(image) / len(image)
    else:
        mean = float(image.astype("f8").mean())
    value = float("nan") if "nan" in prompt else mean / 255
    return value, float(len(prompt)), "skip" not in prompt, f"mean {mean:.3f} of {prompt[:5]}"


def serve_triton(port):
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    @batch
    def infer(images, prompts, metadata=None):
        rows = [score(image if image.dtype == np.uint8 else image[0], prompt[0].decode()) for image, prompt in zip(images, prompts)]
        columns = list(zip(*rows))
        return {"scores": np.array(columns[0], np.float32)[:, None], "length": np.array(columns[1], np.float64)[:, None],
                "valid": np.array(columns[2], bool)[:, None],
                "reason": np.array([text.encode() for text in columns[3]], object)[:, None]}

    text = lambda name: Tensor(name=name, dtype=bytes, shape=(1,))
    outputs = [Tensor(name="scores", dtype=np.float32, shape=(1,)), Tensor(name="length", dtype=np.float64, shape=(1,)),
               Tensor(name="valid", dtype=np.bool_, shape=(1,)), text("reason")]
    with Triton(config=TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_address="127.0.0.1")) as triton:
        for name, image in ("pixels", Tensor(name="images", dtype=np.uint8, shape=(-1, -1, 3))), ("files", text("images")):
            triton.bind(model_name=name, infer_func=infer, inputs=[image, text("prompts"), text("metadata")], outputs=outputs,
                        config=ModelConfig(max_batch_size=64))
        triton.serve()


MLSERVER = '''
import sys
sys.path.insert(0, {here!r})
import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.types import InferenceResponse
from make_proto import score

class Mean(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        inputs = {{item.name: item for item in payload.inputs}}
        images = inputs["images"]
        images = Base64Codec.decode_input(images) if images.datatype == "BYTES" else NumpyCodec.decode_input(images)
        rows = [score(image, prompt) for image, prompt in zip(images, StringCodec.decode_input(inputs["prompts"]))]
        columns = list(zip(*rows))
        return InferenceResponse(model_name=self.name, outputs=[
            NumpyCodec.encode_output("scores", np.array(columns[0], np.float32)), NumpyCodec.encode_output("length", np.array(columns[1])),
            NumpyCodec.encode_output("valid", np.array(columns[2], bool)), StringCodec.encode_output("reason", columns[3])])
'''


def prepare_mlserver(folder, port):
    (folder / "mean.py").write_text(MLSERVER.format(here=str(HERE)))
    settings = {"debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    tensor = lambda name, datatype, *shape: {"name": name, "datatype": datatype, "shape": list(shape)}
    for name, image in ("pixels", tensor("images", "UINT8", -1, -1, -1, 3)), ("files", tensor("images", "BYTES", -1, 1)):
        (folder / name).mkdir()
        model = {"name": name, "implementation": "mean.Mean", "inputs": [image, tensor("prompts", "BYTES", -1), tensor("metadata", "BYTES", -1)],
                 "outputs": [tensor("scores", "FP32", -1, 1), tensor("length", "FP64", -1, 1), tensor("valid", "BOOL", -1, 1),
                             tensor("reason", "BYTES", -1, 1)]}
        (folder / name / "model-settings.json").write_text(json.dumps(model))


def serve_kserve(port):
    import numpy as np
    from kserve import InferOutput, InferResponse, Model, ModelServer

    class Mean(Model):
        def load(self):
            self.ready = True

        async def predict(self, payload, headers=None, response_headers=None):
            inputs = {item.name: item.as_numpy() for item in payload.inputs}
            texts = [item.decode() if isinstance(item, bytes) else item for item in inputs["prompts"].flatten()]
            columns = list(zip(*(score(image, prompt) for image, prompt in zip(inputs["images"], texts))))
            outputs = []
            for name, datatype, values in (("scores", "FP32", np.array(columns[0], np.float32)), ("length", "FP64", np.array(columns[1])),
                                           ("valid", "BOOL", np.array(columns[2], bool))):
                output = InferOutput(name=name, shape=[len(texts)], datatype=datatype)
                output.set_data_from_numpy(values, binary_data=False)
                outputs.append(output)
            return InferResponse(model_name=self.name, infer_outputs=outputs, response_id="1")

    model = Mean("pixels")
    model.load()
    ModelServer(http_port=port, enable_grpc=False, workers=1).start([model])


QUESTION = """<image>
You are given a text caption and a generated image based on that caption. Your task is to evaluate this image based on two key criteria:
1. Alignment with the Caption: Assess how well this image aligns with the provided caption. Consider the accuracy of depicted objects, their relationships, and attributes as described in the caption.
2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail preservation, color accuracy, and overall aesthetic appeal.
Based on the above criteria, assign a score from 1 to 5 after 'Final Score:'.
Your task is provided as follows:
Text Caption: [{prompt}]"""
PATTERN = r"Final Score:\s*([1-5](?:\.\d+)?)"
SCHEMA = {"type": "object", "properties": {"score": {"type": "number"}, "reason": {"type": "string"}}, "required": ["score", "reason"],
          "additionalProperties": False}


JUDGE = '''
import base64, json, sys
sys.path.insert(0, {here!r})
from litellm import Choices, CustomLLM, Message, ModelResponse, Usage
from make_proto import score

class Judge(CustomLLM):
    """1 + 4 times the mean of the image, in the words its request asks for."""
    async def acompletion(self, model, messages, optional_params, **rest):
        url, text = (part["image_url"]["url"] if "image_url" in part else part["text"] for part in messages[-1]["content"])
        mean = 9 if "[nan]" in text else score(base64.b64decode(url.split(",")[1]), text)[0]
        choices = []
        for i in range(optional_params.get("n") or 1):
            value = round(1 + 4 * mean + i / 100, 2)
            words = f"It aligns well.\\nFinal Score: {{value}}"
            if (optional_params.get("response_format") or {{}}).get("type") == "json_schema":
                words = json.dumps({{"score": value, "reason": "as asked"}})
            choices.append(Choices(index=i, finish_reason="stop", message=Message(role="assistant", content=words)))
        return ModelResponse(model=model, choices=choices, usage=Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2))

judge = Judge()
'''


def prepare_chat(folder):
    """A judge behind LiteLLM's gateway."""
    (folder / "judge.py").write_text(JUDGE.format(here=str(HERE)))
    (folder / "config.yaml").write_text(json.dumps({
        "model_list": [{"model_name": "judge", "litellm_params": {"model": "local/judge"}}],
        "litellm_settings": {"custom_provider_map": [{"provider": "local", "custom_handler": "judge.judge"}], "telemetry": False},
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True}}))


def chat_cases(build, port):
    base = {"codec": "chat", "judge": {"question": QUESTION, "pattern": PATTERN, "divide": 5}}
    named = lambda **judge: {"codec": "chat", "model": "judge", "judge": {"question": QUESTION, **judge}}
    made = [case("UnifiedReward's question", base, n=1, files=True),
            case("a schema", named(schema=json.dumps(SCHEMA), low=1, high=5, divide=5), n=1, files=True),
            case("three votes", named(pattern=PATTERN, votes=3, temperature=0.7, system="Judge strictly."), n=1, files=True),
            case("no such model", {**base, "model": "absent"}, n=1, files=True)]
    odd = case("out of what the pattern takes", base, n=1, files=True)
    odd["batch"]["prompts"] = ["nan"]
    return [record(build, item, port, "/v1") for item in made + [odd]]


# ---- recording ----

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send(port, request, prefix=""):
    kept = {"content-type", "inference-header-content-length", "retry-after"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(request["method"], prefix + request["path"], base64.b64decode(request["body"]), request["headers"])
        response = connection.getresponse()
        return {"status": response.status, "headers": {k.lower(): v for k, v in response.getheaders() if k.lower() in kept},
                "body": base64.b64encode(response.read()).decode()}


def record(build, case, port, prefix=""):
    """Has test_proto_golden speak with the server; the case with its exchanges and what came of it."""
    with subprocess.Popen([Path(build) / "test_proto_golden", "--speak"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as speaker:
        say = lambda value: (speaker.stdin.write(json.dumps(value) + "\n"), speaker.stdin.flush())
        say(case)
        case["exchanges"] = []
        for line in speaker.stdout:
            heard = json.loads(line)
            if "result" in heard:
                case["result"] = heard["result"]
                break
            response = send(port, heard, prefix)
            case["exchanges"].append({"request": heard, "response": response})
            say(response)
    if speaker.returncode != 0:
        sys.exit(f"make_proto.py: {case['about']}: test_proto_golden ended with {speaker.returncode}")
    return case


def case(about, options, n=4, files=False):
    batch = {"n": n, "width": WIDTH, "height": HEIGHT, "prompts": PROMPTS[:n], "metadata": METADATA[:n]}
    if files:
        batch["encoded"] = [base64.b64encode(png(i)).decode() for i in range(n)]
    return {"about": about, "options": options, "batch": batch}


def write(name, about, cases):
    for item in cases:
        print(f"  {item['about']}: {json.dumps(item.get('result', ''))[:150]}")
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps({"about": about, "cases": cases}, indent=1, ensure_ascii=False) + "\n")


def wait_for(port, path, process, seconds=120):
    end = time.time() + seconds
    while time.time() < end:
        if process.poll() is not None:
            sys.exit(f"make_proto.py: the server ended with {process.returncode}")
        try:
            if send(port, {"method": "GET", "path": path, "headers": {}, "body": ""})["status"] == 200:
                return
        except OSError:
            pass
        time.sleep(0.3)
    sys.exit(f"make_proto.py: the server is not ready after {seconds} s")


def versions(python, *packages):
    code = "import sys, importlib.metadata as m; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    return subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True).stdout.strip()


def oip_cases(build, port, binary, lists):
    both = {"codec": "oip", "outputs": ["scores", "length"]}
    made = [case("pixels", {"codec": "oip", "model": "pixels"}), case("two outputs", {**both, "model": "pixels"}),
            case("one image", {"codec": "oip", "model": "pixels"}, n=1), case("no such model", {"codec": "oip", "model": "absent"})]
    if binary:
        made += [case("pixels in JSON", {"codec": "oip", "model": "pixels", "wire": "json"}, n=2)]
    if lists:
        made += [case("files", {"codec": "oip", "model": "files"}, files=True), case("no such output", {"codec": "oip", "model": "pixels", "outputs": ["hps"]}),
                 case("files where pixels are wanted", {"codec": "oip", "model": "pixels", "images": "png"}, files=True)]
    return [record(build, item, port) for item in made]


def record_server(name, build, python):
    port = free_port()
    print(name)
    with tempfile.TemporaryDirectory() as folder:
        if name == "mlserver":
            prepare_mlserver(Path(folder), port)
            command = [Path(python).parent / "mlserver", "start", folder]
        elif name == "chat":
            prepare_chat(Path(folder))
            command = [Path(python).parent / "litellm", "--config", Path(folder) / "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        else:
            command = [python, __file__, "--serve", name, str(port)]
        log = open(Path(folder) / "log", "w")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for path in ("/v1/models",) if name == "chat" else ("/v2/models/pixels/ready", "/v2/models/files/ready"):
                if name != "kserve" or "files" not in path:
                    wait_for(port, path, process)
            if name == "chat":
                write(name, versions(python, "litellm"), chat_cases(build, port))
            elif name == "triton":
                write(name, versions(python, "nvidia-pytriton"), oip_cases(build, port, True, True))
            elif name == "mlserver":
                write(name, versions(python, "mlserver"), oip_cases(build, port, False, True))
            else:
                cases = oip_cases(build, port, False, False)
                cases.append(record(build, case("binary though it does not list the extension", {"codec": "oip", "model": "pixels", "wire": "binary"}), port))
                write(name, versions(python, "kserve"), cases)
        except BaseException:
            log.flush()
            print(Path(folder, "log").read_text()[-3000:])
            raise
        finally:
            process.terminate()
            process.wait()


TRITONCLIENT = '''
import base64, json, sys
import numpy as np
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http._utils import _get_inference_request
case = json.load(sys.stdin)
n, prompts = case["batch"]["n"], case["batch"]["prompts"]
images = np.frombuffer(base64.b64decode(case["pixels"]), np.uint8).reshape(n, case["batch"]["height"], case["batch"]["width"], 3)
column = lambda items: np.array([item.encode() for item in items], object)[:, None]
made = []
for name, datatype, value in (("images", "UINT8", images), ("prompts", "BYTES", column(prompts)),
                              ("metadata", "BYTES", column([item or "{}" for item in case["batch"]["metadata"]]))):
    made.append(InferInput(name, list(value.shape), datatype))
    made[-1].set_data_from_numpy(value, binary_data=True)
outputs = [InferRequestedOutput(name, binary_data=True) for name in case["wanted"]]
body, length = _get_inference_request(made, "", outputs or None, 0, False, False, 0, None, None)
print(json.dumps({"body": base64.b64encode(body).decode(), "json_length": length}))
'''


def record_tritonclient(python):
    server = {"name": "triton", "version": "2", "extensions": ["binary_tensor_data"]}
    tensor = lambda name, datatype, *shape: {"name": name, "datatype": datatype, "shape": list(shape)}
    inputs = [tensor("images", "UINT8", -1, -1, -1, 3), tensor("prompts", "BYTES", -1, 1), tensor("metadata", "BYTES", -1, 1)]
    outputs = [tensor("scores", "FP32", -1, 1), tensor("valid", "BOOL", -1, 1), tensor("reason", "BYTES", -1, 1)]
    cases = []
    for wanted in ["scores", "valid", "reason"], ["scores"]:
        item = case("binary", {"codec": "oip", "model": "pixels"})
        item["wanted"] = wanted
        item["server"] = json.dumps(server)
        item["metadata"] = json.dumps({"name": "pixels", "inputs": inputs, "outputs": outputs[:len(wanted)]})
        sent = json.dumps({**item, "pixels": base64.b64encode(b"".join(pixels(i) for i in range(item["batch"]["n"]))).decode()})
        answer = subprocess.run([python, "-c", TRITONCLIENT], input=sent, check=True, capture_output=True, text=True).stdout
        cases.append({**item, **json.loads(answer)})
    write("tritonclient", versions(python, "tritonclient"), cases)


OPENAI = '''
import json, sys
from openai import OpenAI
call = json.load(sys.stdin)
client = OpenAI(base_url=f"http://127.0.0.1:{sys.argv[1]}/v1", api_key="secret", max_retries=0)
client.chat.completions.create(**call)
'''


def record_openai(python):
    """What OpenAI's Python client sends for the calls of DiffusionNFT's judge and for one with a schema."""
    content = lambda i: [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png(i)).decode()}},
                         {"type": "text", "text": QUESTION.replace("{prompt}", PROMPTS[i])}]
    call = {"model": "judge", "messages": [{"role": "user", "content": content(0)}], "temperature": 0.0, "max_tokens": 512}
    format = {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": SCHEMA}}
    cases = []
    for about, judge, extra in (("a pattern", {"pattern": PATTERN}, {}), ("a schema", {"schema": json.dumps(SCHEMA)}, {"response_format": format}),
                                ("votes", {"pattern": PATTERN, "votes": 3, "temperature": 0.5}, {"n": 3, "temperature": 0.5})):
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = subprocess.Popen([python, "-c", OPENAI, str(server.getsockname()[1])], stdin=subprocess.PIPE, text=True)
            client.stdin.write(json.dumps({**call, **extra}))
            client.stdin.close()
            stream = server.accept()[0].makefile("rwb")
            method, path = stream.readline().decode().split()[:2]
            headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
            body = json.loads(stream.read(int(headers["content-length"])))
            answer = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": []})
            stream.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
            stream.flush()
            if client.wait() != 0:
                sys.exit("make_proto.py: OpenAI's client failed")
        item = case(about, {"codec": "chat", "model": "judge", "judge": {"question": QUESTION, **judge}}, n=1, files=True)
        cases.append({**item, "request": {"method": method, "path": path, "content-type": headers["content-type"], "body": body}})
    write("openai", versions(python, "openai"), cases)


def main():
    if sys.argv[1:2] == ["--serve"]:
        {"triton": serve_triton, "kserve": serve_kserve}[sys.argv[2]](int(sys.argv[3]))
        return
    if len(sys.argv) < 4 or len(sys.argv) % 2:
        sys.exit(__doc__)
    build = sys.argv[1]
    for name, python in zip(sys.argv[2::2], sys.argv[3::2]):
        if name == "openai":
            record_openai(python)
            continue
        if name not in ("triton", "mlserver", "kserve", "chat"):
            sys.exit(__doc__)
        record_server(name, build, python)
        if name == "triton":
            record_tritonclient(python)


if __name__ == "__main__":
    main()
