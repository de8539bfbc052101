"""Archives of data sets on a server of this machine."""

import hashlib
import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lookalikes import pack

from ddad.data.datasets import DATASETS


class Server(ThreadingHTTPServer):
    """Serves one file on 127.0.0.1.

    `ranges`, `dies_after` bytes, `etag` and `status` can be changed; `asked` holds the
    Range of each request.
    """

    def __init__(self, path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.path, self.ranges, self.dies_after = path, True, None
        self.etag, self.status, self.asked = '"one"', 200, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/{self.path.name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content, begin = self.server, self.server.path.read_bytes(), 0
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            return self.send_error(server.status)
        same = self.headers.get("If-Range") == server.etag
        if asked and server.ranges and same:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
            self.send_response(206)
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin:][: server.dies_after])

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(monkeypatch, tmp_path):
    """A function that packs a folder as the archive of a data set and serves it.

    The table then has that archive's address, hash and size, or the changes given.
    """
    servers = []

    def serve(name, folder=None, suffix=".tar.xz", archive=None, **changes):
        archive = archive or pack(folder, tmp_path / f"archive{suffix}")
        servers.append(server := Server(archive))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        found = {"urls": (server.url,), "size": archive.stat().st_size,
                 "sha256": digest if DATASETS[name].sha256 else None}
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], **found | changes))
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
