#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Drive Chromium over its DevTools pipe: open tabs on different sites, load each twice, close them again.

Pages come from a server of our own on the loopback device.  Chromium resolves *.localhost by itself, and
gives every site a renderer process, so each tab (and each frame of another site) is a fork of the zygote.
"""

import http.server
import itertools
import json
import sys
import threading
import time

PAGE = """<!DOCTYPE html><title>%(name)s</title><div id=list></div><iframe src="%(frame)s"></iframe>
<script>
let kept = [];
for (let i = 0; i < 100; i++) {
    kept.push(new Uint8Array(32768).fill(i));                       // the allocator's pages
    kept.push(Array.from({length: 200}, (_, k) => ({k, s: "x" + k})));  // V8's heap
}
let list = document.getElementById("list");
for (let i = 0; i < 300; i++) {                                     // Blink's heap
    let item = document.createElement("p");
    item.textContent = "line " + i + " of " + document.title;
    list.append(item);
}
</script>"""
FRAME = "<!DOCTYPE html><p>frame</p><script>let kept = new Array(50000).fill({});</script>"


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.server.server_address[1]
        frame = f"http://frames.localhost:{port}/frame"
        text = FRAME if self.path == "/frame" else PAGE % {"name": self.headers["Host"] + self.path, "frame": frame}
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


class DevTools:
    """The protocol's messages are JSON, each ended by a zero byte."""

    def __init__(self, commands: str, answers: str) -> None:
        self.commands = open(commands, "wb", buffering=0)
        self.answers = open(answers, "rb")
        self.numbers = itertools.count(1)

    def message(self) -> dict:
        text = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            if not byte:
                raise EOFError("chromium has gone")
            text += byte
        return json.loads(text)

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        number = next(self.numbers)
        command = {"id": number, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        self.commands.write(json.dumps(command).encode() + b"\0")
        while (answer := self.message()).get("id") != number:
            pass  # events are of no interest
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait_loaded(self, session: str, url: str) -> None:
        test = f"location.href == {url!r} && document.readyState == 'complete'"
        while not self.call("Runtime.evaluate", session, expression=test)["result"].get("value"):
            time.sleep(0.05)


def main() -> None:
    commands, answers, tabs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]

    chromium = DevTools(commands, answers)
    targets = []
    for n in range(tabs):
        url = f"http://site{n}.localhost:{port}/first"
        target = chromium.call("Target.createTarget", url=url)["targetId"]
        session = chromium.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        chromium.wait_loaded(session, url)
        targets.append((target, session, n))
    for target, session, n in targets:
        url = f"http://site{n}.localhost:{port}/second"
        chromium.call("Page.navigate", session, url=url)
        chromium.wait_loaded(session, url)
        if n % 2:  # the other renderers stay alive until the browser closes
            chromium.call("Target.closeTarget", targetId=target)
    chromium.call("Browser.close")


if __name__ == "__main__":
    main()
