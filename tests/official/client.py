"""The official Python client, writing and tailing for real: the server is killed and started again meanwhile.

The published client has neither idempotent producers nor the end of a closed stream. So the producer's headers are given
through the client's dynamic headers, appends are repeated by the test, and readers stop at the last message.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

import httpx
from durable_streams import DurableStream, DurableStreamError, StreamNotFoundError, stream

MESSAGES = 300
KILLS = 3
PATIENCE = 90


class Server:
    """The server at a fixed port, so that clients find it again. HEADWATER_SERVER is its command, with "{port}"."""

    def __init__(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        self.command = [word.replace("{port}", port) for word in json.loads(os.environ["HEADWATER_SERVER"])]
        self.log = tempfile.TemporaryFile()
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=2)
                return
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"{self.url} does not answer:\n{self.output()}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def output(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def end(self):
        self.kill()
        self.log.close()


class Producer:
    """Appends with the three producer headers, again and again until acknowledged."""

    def __init__(self, url, name):
        self.seq = 0
        headers = {"Producer-Id": name, "Producer-Epoch": "0", "Producer-Seq": lambda: str(self.seq)}
        self.handle = DurableStream(url, headers=headers, content_type="application/json", batching=False, timeout=30)
        self.repeated = 0

    def append(self, message):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.handle.append(message)
                self.seq += 1
                return
            except (httpx.TransportError, DurableStreamError) as error:
                if isinstance(error, DurableStreamError) and error.status is not None and error.status < 500:
                    raise
                if time.monotonic() > deadline:
                    raise
                self.repeated += 1
                time.sleep(0.05)


def tail(url, live, expected):
    """Reads until `expected` messages are there. Goes on at the last offset that it has the messages for."""
    items, offset, deadline = [], "-1", time.monotonic() + PATIENCE
    while len(items) < expected and time.monotonic() < deadline:
        try:
            with stream(url, offset=offset, live=live, timeout=30) as session:
                for event in session.iter_events("json_batches"):
                    items.extend(event.data)
                    offset = event.next_offset
                    if len(items) >= expected:
                        break
        except (httpx.HTTPError, DurableStreamError):
            time.sleep(0.05)
    return items


class Reader(threading.Thread):
    def __init__(self, url, live, expected):
        super().__init__(daemon=True)
        self.ask, self.items = (url, live, expected), None
        self.start()

    def run(self):
        try:
            self.items = tail(*self.ask)
        except Exception:
            self.items = traceback.format_exc()


def name(server, what):
    return f"{server.url}/v1/stream/python/{what}-{time.time_ns()}"


def what_is_written_is_read_back(server):
    with DurableStream.create(name(server, "plain"), content_type="text/plain") as handle:
        handle.append("one ")
        handle.append(b"two")
        with handle.stream(live=False) as session:
            text = session.read_text()
        assert text == "one two", text
        assert handle.head().content_type.startswith("text/plain")
        handle.delete()
        try:
            handle.head()
            raise AssertionError("a deleted stream answers")
        except StreamNotFoundError:
            pass


def messages_arrive_exactly_once_and_in_order_through_restarts(server):
    url = name(server, "restarts")
    DurableStream.create(url, content_type="application/json").close()
    readers = [Reader(url, live, MESSAGES) for live in ("long-poll", "sse", "auto", "sse")]
    producer, failure = Producer(url, "writer"), []

    def write():
        try:
            for n in range(MESSAGES):
                producer.append({"n": n})
                time.sleep(0.005)
        except Exception:
            failure.append(traceback.format_exc())

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for _ in range(KILLS):
        time.sleep(0.4)
        assert writer.is_alive(), f"the writer was done before the server was killed: {failure}"
        server.kill()
        time.sleep(0.2)
        server.start()
    writer.join(PATIENCE)
    assert not writer.is_alive() and not failure, failure
    assert producer.repeated > 0, "no append was interrupted"
    every = [{"n": n} for n in range(MESSAGES)]
    with stream(url, live=False) as session:
        stored = session.read_json()
    assert stored == every, difference(stored, every)
    for reader in readers:
        reader.join(PATIENCE)
        assert reader.items == every, (reader.ask, difference(reader.items, every))


def a_repeated_append_is_stored_once_also_after_a_restart(server):
    url = name(server, "repeat")
    DurableStream.create(url, content_type="application/json").close()
    producer = Producer(url, "writer")
    producer.append("first")
    producer.append("second")
    server.kill()
    server.start()
    producer.seq = 1
    producer.append("second")
    producer.append("third")
    with stream(url, live=False) as session:
        stored = session.read_json()
    assert stored == ["first", "second", "third"], stored


def difference(seen, wanted):
    if not isinstance(seen, list):
        return seen
    at = next((n for n, (a, b) in enumerate(zip(seen, wanted)) if a != b), min(len(seen), len(wanted)))
    return f"{len(seen)} of {len(wanted)} messages, first difference at {at}: {seen[at:at + 3]}"


TESTS = [
    what_is_written_is_read_back,
    messages_arrive_exactly_once_and_in_order_through_restarts,
    a_repeated_append_is_stored_once_also_after_a_restart,
]


def main():
    server, failed = Server(), 0
    try:
        for test in TESTS:
            try:
                test(server)
                print(f"ok {test.__name__}")
            except Exception:
                failed += 1
                print(f"FAILED {test.__name__}\n{traceback.format_exc()}")
        if failed:
            print(f"server:\n{server.output()}")
    finally:
        server.end()
    print(f"{len(TESTS) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
