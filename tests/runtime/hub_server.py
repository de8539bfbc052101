"""A small Hugging Face hub on 127.0.0.1: repositories in memory, asked as the real one.

It answers what `huggingface_hub` asks to fetch a snapshot and to commit a folder, by
whole files: no LFS and no Xet.
"""
import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

REPOSITORY = r"(?P<name>[^/]+/[^/]+)"


class Hub(ThreadingHTTPServer):
    """`repositories` maps user/name to its files, bytes by path, `private` to whether
    it was made so; `asked` lists method and path of each request; `broken` is a status
    that answers all of them.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.private = {}, {}
        self.asked, self.broken = [], None
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name, folder):
        """The files of a folder as a repository."""
        self.repositories[name] = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}

    def commit_of(self, name):
        """40 hex digits that tell the files."""
        content = repr(sorted(self.repositories[name].items())).encode()
        return hashlib.sha1(content).hexdigest()

    def fetched(self):
        """The paths of the files whose content was asked for."""
        found = (re.fullmatch(rf"/{REPOSITORY}/resolve/[^/]+/(?P<path>.+)", path)
                 for method, path in self.asked if method == "GET")
        return sorted(match["path"] for match in found if match)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        body, path = self.rfile.read(size), unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        if self.server.broken:
            return self.reply({"error": "broken"}, self.server.broken)
        for pattern, reply in ROUTES.items():
            if match := re.fullmatch(pattern, path):
                found = match.groupdict()
                name = found.get("name")
                if name and name not in self.server.repositories:
                    return self.reply({"error": "Repository not found"}, 404,
                                      {"X-Error-Code": "RepoNotFound"})
                return reply(self, body, **found)
        return self.reply({"error": f"no such page: {path}"}, 404)

    do_GET = do_HEAD = do_POST = answer

    def reply(self, content, status=200, headers=()):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def about(self, body, name, revision=None):
    sha = self.server.commit_of(name)
    if revision not in (None, "main", sha):
        return self.reply({"error": "Revision not found"}, 404,
                          {"X-Error-Code": "RevisionNotFound"})
    files = [{"rfilename": path} for path in self.server.repositories[name]]
    # the rest is what older clients want
    return self.reply({"id": name, "sha": sha, "siblings": files, "private": False,
                       "downloads": 0, "likes": 0, "tags": []})


def tree(self, body, name, revision):
    return self.reply([
        {"type": "file", "path": path, "size": len(content),
         "oid": hashlib.sha1(content).hexdigest()}
        for path, content in self.server.repositories[name].items()])


def resolve(self, body, name, revision, path):
    content = self.server.repositories[name].get(path)
    if content is None:
        return self.reply({"error": "Entry not found"}, 404,
                          {"X-Error-Code": "EntryNotFound"})
    return self.reply(content, headers={
        "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
        "X-Repo-Commit": self.server.commit_of(name)})


def create(self, body):
    asked = json.loads(body)
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    self.server.repositories.setdefault(name, {})
    # newer clients name the visibility
    self.server.private[name] = asked.get("private",
                                          asked.get("visibility") == "private")
    return self.reply({"url": f"{self.server.url}/{name}", "name": name, "id": name})


def check_card(self, body):
    """The hub's own rules, as far as they go without its lists."""
    head = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.S)
    data = yaml.safe_load(head[1]) if head else None
    if not isinstance(data, dict) or not isinstance(data.get("license"), str):
        return self.reply({"errors": [{"message": "metadata lack a license"}]}, 400)
    return self.reply({"errors": [], "warnings": []})


def preupload(self, body, name, revision):
    return self.reply({"files": [
        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
        for one in json.loads(body)["files"]]})


def commit(self, body, name, revision):
    lines = [json.loads(line) for line in body.splitlines()]
    for line in lines:
        if line["key"] == "file":
            value = line["value"]
            content = base64.b64decode(value["content"])
            self.server.repositories[name][value["path"]] = content
    sha = self.server.commit_of(name)
    return self.reply({"success": True, "commitOid": sha,
                       "commitUrl": f"{self.server.url}/{name}/commit/{sha}"})


ROUTES = {
    rf"/api/models/{REPOSITORY}(/revision/(?P<revision>.+))?": about,
    rf"/api/models/{REPOSITORY}/tree/(?P<revision>[^/]+)": tree,
    rf"/api/models/{REPOSITORY}/preupload/(?P<revision>[^/]+)": preupload,
    rf"/api/models/{REPOSITORY}/commit/(?P<revision>[^/]+)": commit,
    r"/api/repos/create": create,
    r"/api/validate-yaml": check_card,
    rf"/{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": resolve,
}
