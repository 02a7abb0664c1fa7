"""An S3 server on 127.0.0.1 with a few objects: list, read, and what can go wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape


class Bucket:
    """Objects by BUCKET/KEY; `gets` counts reads of each, and those in `denied` are answered with 403."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.gets: list[str] = []
        self.denied: set[str] = set()
        self.url = ""


@contextmanager
def serve(bucket: Bucket) -> Iterator[Bucket]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(bucket))
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            url = urlsplit(self.path)
            key, query = url.path.strip("/"), parse_qs(url.query)
            if "prefix" in query:
                return self._answer(200, _listing(bucket, key, query["prefix"][0]), "application/xml")
            if any(path.startswith(f"{key}/") for path in bucket.objects):  # does the bucket exist?
                return self._answer(200, b"", "application/xml")
            if key in bucket.denied:
                return self._answer(403, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")
            if key not in bucket.objects:
                return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
            if self.command == "GET":
                bucket.gets.append(key)
            body = bucket.objects[key]
            if asked := self.headers.get("Range"):
                first, last = asked.removeprefix("bytes=").split("-")
                part = body[int(first) : int(last) + 1]
                return self._answer(
                    206, part, "application/dicom", {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
                )
            return self._answer(200, body, "application/dicom")

        def _answer(self, status, body, kind, more=None):
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "ETag": '"0"',
                "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT",
                **(more or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


def _listing(bucket: Bucket, name: str, prefix: str) -> bytes:
    entries = "".join(
        f"<Contents><Key>{escape(path.split('/', 1)[1])}</Key><Size>{len(body)}</Size>"
        '<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>"0"</ETag>'
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for path, body in sorted(bucket.objects.items())
        if path.startswith(f"{name}/{prefix}")
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{entries.count('<Key>')}</KeyCount>"
        f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    ).encode()
