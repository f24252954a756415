"""Headless Chromium for tests of the page, driven through its DevTools protocol over a pipe: Python's standard library alone."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

INSTALL = "apt-get install chromium"


def program():
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. `errors` has whatever it wrote to its console as an error or warning, exceptions and failed loads."""

    def __init__(self, width=1280, height=900):
        self.folder = tempfile.mkdtemp(prefix="marble-browser-")
        to_browser, self.into = os.pipe()
        self.out, from_browser = os.pipe()

        def pipes():  # the browser reads 3 and writes 4
            os.dup2(to_browser, 10)
            os.dup2(from_browser, 11)
            os.dup2(10, 3)
            os.dup2(11, 4)

        self.process = subprocess.Popen(
            [program(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
             "--disable-component-update", "--hide-scrollbars", "--force-color-profile=srgb", "--user-data-dir=" + self.folder, "--remote-debugging-pipe",
             f"--window-size={width},{height}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=pipes,
            env=dict(os.environ, HOME=self.folder))
        os.close(to_browser)
        os.close(from_browser)
        self.errors, self.answers, self.loaded = [], {}, threading.Event()
        self.changed, self.writing, self.next, self.session = threading.Condition(), threading.Lock(), 0, None
        threading.Thread(target=self._read, daemon=True).start()
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.size(width, height)

    def _read(self):
        waiting = b""
        while True:
            piece = os.read(self.out, 1 << 20)
            if not piece:
                with self.changed:
                    self.answers = None
                    self.changed.notify_all()
                return
            waiting += piece
            *messages, waiting = waiting.split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message):
        method, data = message.get("method"), message.get("params", {})
        if "id" in message:
            with self.changed:
                self.answers[message["id"]] = message
                self.changed.notify_all()
        elif method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Page.javascriptDialogOpening":  # whoever asks is told yes
            threading.Thread(target=self.call, args=("Page.handleJavaScriptDialog",), kwargs={"accept": True}, daemon=True).start()
        elif method == "Runtime.exceptionThrown":
            details = data["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and data["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in data["args"]))
        elif method == "Log.entryAdded" and data["entry"]["level"] in ("error", "warning"):
            self.errors.append(data["entry"]["text"] + " " + data["entry"].get("url", ""))

    def call(self, method, **parameters):
        with self.writing:
            self.next += 1
            number, message = self.next, {"id": self.next, "method": method, "params": parameters}
            if self.session:
                message["sessionId"] = self.session
            rest = json.dumps(message).encode() + b"\0"
            while rest:
                rest = rest[os.write(self.into, rest):]
        with self.changed:
            if not self.changed.wait_for(lambda: self.answers is None or number in self.answers, 60):
                raise TimeoutError(f"{method}: the browser does not answer")
            if self.answers is None:
                raise ConnectionError("the browser ended")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def size(self, width, height, mobile=False, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def open(self, url):
        self.loaded.clear()
        self.call("Page.navigate", url=url)
        if not self.loaded.wait(30):
            raise TimeoutError(url + " is not loaded")

    def run(self, expression):
        """The value of a JavaScript expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", expression))
        return answer["result"].get("value")

    def until(self, expression, seconds=20):
        """Waits for the expression to be true, and gives its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.run(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {expression}")
            time.sleep(0.1)

    def choose_files(self, selector, *paths):
        """Chooses files, or a folder, in an input element."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def picture(self, path, whole=False):
        shape = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            shape = {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png", **shape)["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.into)
        shutil.rmtree(self.folder, ignore_errors=True)
