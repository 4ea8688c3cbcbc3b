"""Try routes from where this runs: resolve, connect, TLS, and the requests that the real client would make.

Runs inside a context, as text on stdin (see __init__.py): standard library only, Python >= 3.6. It reads the
context's own Attic and netrc files for a token, uses it, and never prints it. Prints one JSON document.
"""

import base64
import fnmatch
import json
import os
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

BODY = 2048


def main(plan: dict) -> None:
    """Carry out a plan {timeout, targets: [{id, kind, url, cache, token, hash, api_endpoint}]} and print."""
    # At once: without a network every name takes as long as the resolver waits.
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda target: probe(target, plan.get("timeout", 5.0)), plan["targets"]))
    print(json.dumps({"tool": "python", "results": results}))


def probe(target: dict, timeout: float) -> dict:
    """Give what was seen of one target, step by step; a step that failed is the last."""
    url = target["url"].rstrip("/")
    found = {"id": target["id"], "requests": {}}
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not reach(found, parts.scheme, parts.hostname, port, timeout):
        return found
    asks = found["requests"]
    kind, cache = target["kind"], target.get("cache")
    if kind in ("attic", "cachix", "substituter"):
        base = url + ("/" + cache if cache else "")
        asks["anonymous"] = get(base + "/nix-cache-info", timeout)
        if is_secure(found, parts.scheme, parts.hostname, port, timeout):
            return found
        token = target.get("token") or own_token(url, parts.hostname)
        if token:
            found["claims"] = claims(token, cache)
            asks["authenticated"] = get(base + "/nix-cache-info", timeout, token)
        if kind == "attic":
            asks["config"] = get(url + "/_api/v1/cache-config/" + cache, timeout, token)
            if token:
                body = json.dumps({"cache": cache, "store_path_hashes": []})
                asks["push"] = get(url + "/_api/v1/get-missing-paths", timeout, token, body)
            follow_endpoint(found, url, timeout)
        if target.get("hash"):
            follow_body(found, base, target["hash"], timeout, token)
    else:
        asks["anonymous"] = get(url + "/", timeout)
        is_secure(found, parts.scheme, parts.hostname, port, timeout)
    return found


def is_secure(found: dict, scheme: str, host: str, port: int, timeout: float) -> bool:
    """Note that plain HTTP was asked of a port that speaks TLS, and tell."""
    answer = found["requests"]["anonymous"]
    # nginx answers 400 with a page, Go's server with a line of text, others with an alert or nothing at all.
    refused = answer.get("error") == "other" or (
        answer.get("status") == 400 and "HTTPS" in answer.get("body", "")
    )
    if scheme != "http" or not refused or not speaks_tls(host, port, timeout):
        return False
    found["tls"] = {"error": "plain HTTP was asked of a port that speaks TLS", "kind": "secure"}
    return True


def follow_endpoint(found: dict, url: str, timeout: float) -> None:
    """Try the api-endpoint that the server hands out: `attic push` goes there after its first request."""
    try:
        endpoint = json.loads(found["requests"]["config"]["body"]).get("api_endpoint")
    except (KeyError, ValueError, AttributeError):
        return
    if not isinstance(endpoint, str):
        return
    found["api_endpoint"] = {"url": endpoint}
    parts = urlsplit(endpoint)
    if parts.scheme in ("http", "https") and parts.hostname and endpoint.rstrip("/") != url:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        reach(found["api_endpoint"], parts.scheme, parts.hostname, port, timeout)


def follow_body(found: dict, base: str, store_hash: str, timeout: float, token: str) -> None:
    """Ask for one NAR as Nix does, and try the host that a redirect names."""
    asks = found["requests"]
    asks["narinfo"] = get(base + "/" + store_hash + ".narinfo", timeout, token)
    match = re.search(r"^URL: *(\S+)", asks["narinfo"].get("body", ""), re.MULTILINE)
    if asks["narinfo"].get("status") != 200 or not match:
        return
    asks["nar"] = get(base + "/" + match.group(1), timeout, token)
    location = asks["nar"].get("location")
    if location:
        parts = urlsplit(location)
        found["redirect"] = {"host": parts.netloc}
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if reach(found["redirect"], parts.scheme, parts.hostname, port, timeout):
            answer = get(location, timeout)
            found["redirect"]["status"] = answer.get("status")
            found["redirect"]["body_bytes"] = answer.get("body_bytes")


def reach(found: dict, scheme: str, host: str, port: int, timeout: float) -> bool:
    """Resolve, connect and, for https, shake hands; tell whether all of it worked."""
    start = time.monotonic()
    try:
        infos = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        found["resolve"] = {"error": str(error)}
        return False
    found["resolve"] = {"addresses": sorted({info[4][0] for info in infos})}
    last = None
    for family, kind, proto, _name, address in infos:
        connection = socket.socket(family, kind, proto)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
            break
        except OSError as error:
            last = error
            connection.close()
    else:
        found["connect"] = {"error": failure(last), "text": str(last)}
        return False
    found["connect"] = {"address": address[0], "seconds": round(time.monotonic() - start, 4)}
    try:
        if scheme == "https":
            secured = authorities().wrap_socket(connection, server_hostname=host)
            found["tls"] = {"version": secured.version()}
            secured.close()
    except (OSError, ValueError) as error:
        found["tls"] = {"error": str(error), "kind": tls_failure(error, host, port, timeout)}
        return False
    finally:
        connection.close()
    return True


def authorities() -> object:
    """Trust whom Nix trusts (src/libstore/globals.cc): the file that is set, else the system's."""
    named = [os.environ.get(name, "") for name in ("NIX_SSL_CERT_FILE", "SSL_CERT_FILE")]
    for path in [*named, "/etc/ssl/certs/ca-certificates.crt"]:
        if path and os.path.exists(path):
            return ssl.create_default_context(cafile=path)
    return ssl.create_default_context()


def tls_failure(error: Exception, host: str, port: int, timeout: float) -> str:
    """Name why TLS failed: expired, name, untrusted, plain (the port speaks HTTP), or nothing of these."""
    verify = getattr(error, "verify_code", None)  # X509_V_ERR_… of openssl/x509_vfy.h
    if verify in (9, 10):
        return "expired"
    if verify in (62, 63, 64) or "doesn't match" in str(error):
        return "name"
    if verify:
        return "untrusted"
    if isinstance(error, ssl.SSLError) and "status" in get(
        "http://%s:%d/" % (bracketed(host), port), timeout
    ):
        return "plain"
    return ""


def speaks_tls(host: str, port: int, timeout: float) -> bool:
    """Tell whether a port that gave no HTTP answer shakes hands by TLS, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except (OSError, ValueError):
        return False
    return True


def bracketed(host: str) -> str:
    """Give a host as a URL has it."""
    return "[" + host + "]" if ":" in host else host


def failure(error: object) -> str:
    """Name what happened to a connection: refused, timeout, unreachable or other."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.timeout) or "timed out" in str(error):
        return "timeout"
    if getattr(error, "errno", None) in (101, 113, 51, 65):
        return "unreachable"
    return "other"


def get(url: str, timeout: float, token=None, body=None) -> dict:
    """Give one answer: status, a few headers and the body's first bytes. Follows no redirect."""
    parts = urlsplit(url)
    start = time.monotonic()
    try:
        if parts.scheme == "https":
            from http.client import HTTPSConnection

            connection = HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=authorities())
        else:
            connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        headers = {"User-Agent": "kingpost-doctor", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = "Bearer " + token
        if body is not None:
            headers["Content-Type"] = "application/json"
        path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        connection.request("POST" if body is not None else "GET", path, body, headers)
        response = connection.getresponse()
        text = response.read(BODY)
        found = {
            "status": response.status,
            "body": text.decode("utf-8", "replace"),
            "body_bytes": len(text),
            "seconds": round(time.monotonic() - start, 4),
        }
        for name in ("Content-Type", "Server", "Retry-After", "X-Attic-Cache-Visibility"):
            if response.getheader(name):
                found[name.lower()] = response.getheader(name)
        if response.status in (301, 302, 303, 307, 308):
            found["location"] = response.getheader("Location")
        connection.close()
    except (OSError, HTTPException, ValueError) as error:
        return {"error": failure(error), "text": f"{type(error).__name__}: {error}"}
    return found


def own_token(url: str, host: str) -> object:
    """Give the token that this context's own client would send: from Attic's configuration or a netrc file."""
    home = os.environ.get("HOME") or os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    text = read(os.path.join(config, "attic", "config.toml"))
    for section in re.split(r"(?m)^\[", text):
        values = dict(re.findall(r'(?m)^\s*([\w-]+)\s*=\s*["\']([^"\']*)["\']', section))
        if values.get("endpoint", "").rstrip("/") == url:
            found = values.get("token") or read(values.get("token-file", "")).strip()
            if found:
                return found
    for path in ("/etc/nix/netrc", os.path.join(config, "nix", "netrc"), os.path.join(home, ".netrc")):
        match = re.search(
            r"machine\s+" + re.escape(host or "") + r"\s(?:(?!machine\s).)*?password\s+(\S+)",
            read(path),
            re.DOTALL,
        )
        if match:
            return match.group(1)
    return None


def claims(token: str, cache: str) -> object:
    """Give what a token says of itself for one cache: a claim is no secret, and no proof."""
    try:
        payload = token.split(".")[1]
        data = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode())
        caches = data["https://jwt.attic.rs/v1"]["caches"]
        bits = caches.get(cache)
        if bits is None:
            bits = next((b for pattern, b in caches.items() if fnmatch.fnmatchcase(cache or "", pattern)), {})
        return {
            "pull": bits.get("r") == 1,
            "push": bits.get("w") == 1,
            "expired": data.get("exp", 1 << 60) < time.time(),
        }
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return None


def read(path: str) -> str:
    """Give a file's text; nothing if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except (OSError, ValueError):
        return ""
