"""GitLab's runner API, imitated over HTTP after https://docs.gitlab.com/api/runners/."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

TOKEN = "glpat-not-a-real-one"


def details(number, description, **changes):
    """Give `GET /runners/:id`, with the documented keys."""
    return {
        "active": True, "paused": False, "architecture": None, "description": description, "id": number,
        "ip_address": "", "is_shared": False, "runner_type": "project_type", "contacted_at": "2026-11-21T18:00:00.000Z",
        "maintenance_note": None, "name": None, "online": True, "status": "online", "platform": None, "projects": [],
        "revision": None, "tag_list": [], "version": None, "access_level": "not_protected", "maximum_timeout": None,
        "run_untagged": False, "locked": True, **changes,
    }  # fmt: skip


def manager(system_id, **changes):
    """Give one item of `GET /runners/:id/managers`."""
    return {
        "id": 1, "system_id": system_id, "version": "18.4.0", "revision": "abc", "platform": "linux",
        "architecture": "amd64", "created_at": "2026-06-09T11:12:02.507Z", "contacted_at": "2026-11-21T18:00:00.000Z",
        "ip_address": "100.105.10.61", "status": "online", "job_execution_status": "idle", **changes,
    }  # fmt: skip


@contextmanager
def gitlab(runners, managers):
    """Serve runners (by id) and their managers on loopback; gives the URL. Two items make a page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.headers.get("PRIVATE-TOKEN") != TOKEN:
                return self.answer(401, {"message": "401 Unauthorized"})
            url = urlsplit(self.path)
            parts = url.path.removeprefix("/api/v4/").split("/")
            if parts == ["runners"]:
                page = int(parse_qs(url.query).get("page", ["1"])[0])
                shown = list(runners.values())[(page - 1) * 2 : page * 2]
                following = str(page + 1) if page * 2 < len(runners) else ""
                return self.answer(200, shown, {"x-next-page": following})
            if int(parts[1]) not in runners:
                return self.answer(404, {"message": "404 Runner Not Found"})
            found = managers.get(int(parts[1]), []) if parts[2:] == ["managers"] else runners[int(parts[1])]
            return self.answer(200, found)

        def answer(self, code, document, headers=()):
            body = json.dumps(document).encode()
            self.send_response(code)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
