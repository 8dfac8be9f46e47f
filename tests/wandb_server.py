"""A stand-in for the W&B server on the loopback address: as much of its HTTP interface as a real client uses."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")
STREAM = re.compile(r"/files/[^/]+/([^/]+)/([^/]+)/file_stream")


@dataclass
class Stored:
    """One run as the server knows it."""

    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history as it would be shown, in the order of its lines."""
        return [json.loads(self.lines[i]) for i in sorted(self.lines)]


@dataclass
class Server:
    """What was received, and what the next answers are to be."""

    url: str = ""
    runs: dict[str, Stored] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    fault: int | str | None = None
    """a status code for every answer, or "silent": none at all"""

    def answer(self, operation: str, asked: dict[str, Any]) -> Any:
        """The data of a GraphQL answer; raises KeyError for an operation that is not known."""
        return getattr(self, f"on_{operation.lower()}")(asked)

    def on_viewer(self, _: Any) -> Any:
        return {"viewer": {"id": "V", "entity": "team", "username": "team", "flags": "{}", "teams": {"edges": []}}}

    def on_getdefaultentity(self, _: Any) -> Any:
        return {"viewer": {"id": "V", "entity": "team"}}

    def on_serverfeaturesquery(self, _: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def on_runresumestatus(self, asked: Any) -> Any:
        run = self.runs.get(asked["name"])
        if run is None:
            return {
                "model": {
                    "id": "P",
                    "name": asked.get("project"),
                    "entity": {"id": "E", "name": "team"},
                    "bucket": None,
                }
            }
        tail = [run.lines[max(run.lines)]] if run.lines else []
        bucket = {
            "id": asked["name"], "name": asked["name"], "displayName": run.fields.get("displayName"), "tags": [],
            "summaryMetrics": json.dumps(run.summary), "config": json.dumps(run.config), "historyLineCount": len(run.lines),
            "logLineCount": 0, "eventsLineCount": 0, "historyTail": json.dumps(tail), "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"model": {"id": "P", "name": run.project, "entity": {"id": "E", "name": "team"}, "bucket": bucket}}

    def on_upsertbucket(self, asked: Any) -> Any:
        name = asked.get("name") or asked["id"]
        new = name not in self.runs
        run = self.runs.setdefault(name, Stored(asked.get("project") or "?"))
        run.fields |= {key: value for key, value in asked.items() if value is not None}
        if asked.get("config"):
            run.config = json.loads(asked["config"])
        project = {"id": "P", "name": run.project, "entity": {"id": "E", "name": "team"}}
        bucket = {"id": name, "name": name, "displayName": run.fields.get("displayName") or name, "description": "",
                  "config": json.dumps(run.config), "sweepName": None, "historyLineCount": len(run.lines), "project": project}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_createrunfiles(self, asked: Any) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{asked['run']}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def on_artifacttype(self, _: Any) -> Any:
        return {"project": {"artifact": None}}

    def on_createartifact(self, _: Any) -> Any:
        sequence = {"id": "S", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": "A", "state": "COMMITTED", "artifactSequence": sequence}}}

    def on_runstoppedstatus(self, _: Any) -> Any:
        return {"project": {"run": {"stopped": False}}}

    def _node(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        return {
            "id": name, "name": name, "displayName": run.fields.get("displayName") or name, "group": run.fields.get("groupName"),
            "state": "running" if run.exit_code is None else "finished" if run.exit_code == 0 else "failed",
            "config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary), "systemMetrics": "{}",
            "jobType": run.fields.get("jobType"), "tags": run.fields.get("tags") or [], "commit": None, "readOnly": False,
            "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "notes": "", "sweepName": None,
            "projectId": "1", "project": {"id": "1"}, "description": "", "host": "", "user": {"name": "t", "username": "team"},
            "historyLineCount": len(run.lines), "historyKeys": {"keys": {}, "lastStep": len(run.lines) - 1, "sets": []},
            "runInfo": None, "files": {"edges": []}, "lowVolumeKeys": [],
        }  # fmt: skip

    def on_runs(self, asked: Any) -> Any:
        edges = [{"node": self._node(name), "cursor": name} for name, run in self.runs.items() if run.project == asked["project"]]  # fmt: skip
        if not edges:
            return {"project": None}
        page = {"endCursor": None, "hasNextPage": False}
        return {"project": {"id": "1", "internalId": "1", "runCount": len(edges), "readOnly": False,
                            "runs": {"edges": edges, "pageInfo": page}}}  # fmt: skip

    on_lightweightruns = on_getruns = on_getlightweightruns = on_runs

    def on_run(self, asked: Any) -> Any:
        found = asked["name"] in self.runs
        return {"project": {"id": "1", "internalId": "1", "run": self._node(asked["name"]) if found else None}}

    on_getrun = on_getlightweightrun = on_run

    def on_runparquethistory(self, asked: Any) -> Any:
        live = [{"_step": i} for i in sorted(self.runs[asked["runName"]].lines)]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}

    def on_runhistorykeys(self, asked: Any) -> Any:
        return {"project": {"run": {"historyKeys": {"keys": {}, "lastStep": len(self.runs[asked["name"]].lines) - 1}}}}

    def on_historypage(self, asked: Any) -> Any:
        run = self.runs[asked.get("run") or asked["name"]]
        low, high = int(asked.get("minStep") or 0), int(asked.get("maxStep") or 10**9)
        return {"project": {"run": {"history": [line for i, line in sorted(run.lines.items()) if low <= i < high]}}}

    on_runfullhistory = on_getrunhistorypage = on_historypage


class Handler(BaseHTTPRequestHandler):
    """Notes every request and answers it, or does not."""

    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, *_: Any) -> None:
        """Nothing: a test reads `received`."""

    def do_GET(self) -> None:
        self._take()
        self._send({})

    def do_PUT(self) -> None:
        body = self._take()
        if self._healthy():
            _, _, run, name = self.path.split("/", 3)
            self.server_state.runs[run].files[name] = body
            self._send({})

    def do_POST(self) -> None:
        body = self._take()
        if not self._healthy():
            return
        if stream := STREAM.match(self.path):
            self._stream(stream[2], json.loads(body))
            self._send({})
            return
        asked = json.loads(body)
        name = found[1] if (found := OPERATION.search(asked["query"])) else "?"
        self.server_state.operations.append(name)
        try:
            self._send({"data": self.server_state.answer(name, asked.get("variables") or {})})
        except AttributeError:
            self._send({"data": None, "errors": [{"message": f"the stand-in knows no {name}"}]})

    def _take(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        named = {k: v for k, v in self.headers.items() if k != "Authorization"}  # the key has to be there
        self.server_state.received.append(f"{self.path} {named}".encode() + body)
        return body

    def _healthy(self) -> bool:
        fault = self.server_state.fault
        if fault is None:
            return True
        if fault == "silent":
            while self.server_state.fault == "silent":
                time.sleep(0.05)
            self.close_connection = True
        else:
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
        return False

    def _send(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.server_state.runs[name]
        for file, part in sent.get("files", {}).items():
            if file == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
            elif file == "wandb-history.jsonl":
                run.lines |= {part["offset"] + i: line for i, line in enumerate(part["content"])}
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")


class Quiet(ThreadingHTTPServer):
    """Clients that go away are part of the tests."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """A server on the loopback address, for a while."""
    state = Server()
    http = Quiet(("127.0.0.1", port), type("Bound", (Handler,), {"server_state": state}))
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        state.fault = None
        http.shutdown()
        http.server_close()
