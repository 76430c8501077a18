"""Normalize URLs of untrusted requests, so that they can be compared with allowed prefixes.

A URL has many spellings: `%2e%2e` is `..`, and `HTTPS://Host:443/` is `https://host/`. Others are
ambiguous, because URL parsers interpret them differently: `\\`, `https://allowed@evil/`, `%252e`.
Therefore a URL is first converted to the normal form of RFC 3986 section 6.2, and ambiguous URLs
are rejected. Only the normal form is compared, stored and opened.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import unquote_to_bytes

_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
"""Text of the characters that RFC 3986 section 2 allows in a URL."""
_WEB = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*))"
    r"(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[^?]*)?"
    r"(?:\?(?P<query>.*))?",
    re.IGNORECASE | re.ASCII,
)
_BUCKET = re.compile(
    r"(?P<scheme>gs|s3)://(?P<bucket>[a-z0-9][a-z0-9._-]*[a-z0-9])(?P<name>/.*)?",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AMBIGUOUS = re.compile(r"%(?:2F|5C|7F|[01][0-9A-F]|25[0-9A-Fa-f]{2})")
"""Escapes of separators (/ and \\) and control characters, and double escapes.

Whether a server decodes them before or after it splits the path is not standardized.
"""


class UrlError(ValueError):
    """A URL is malformed or ambiguous. The message completes the sentence "it …"."""


def normalize_url(url: str) -> str:
    """Normalize a URL (RFC 3986 sections 6.2.2 and 6.2.3).

    Scheme and host become lower case, default ports and dot segments are removed, escapes of
    unreserved characters are decoded, and other escapes become upper case. Object names at `gs://`
    and `s3://` are taken literally, as buckets do.

    Args:
        url: An `http`, `https`, `gs` or `s3` URL in any spelling.

    Returns:
        The normal form. Equivalent URLs have the same.

    Raises:
        UrlError: The URL has another scheme, is malformed, or is ambiguous: it contains a user
            name, a fragment, a backslash, an escaped separator, a double escape, or a host that
            ends in a dot.
    """
    bucket = _BUCKET.fullmatch(url)
    if bucket is not None:
        prefix = f"{bucket['scheme']}://{bucket['bucket']}".lower()
        return prefix + _checked_object_name(bucket["name"] or "")
    if not _CHARACTERS.fullmatch(url):
        raise UrlError("it contains characters that are not allowed in URLs")
    if "#" in url:
        raise UrlError("it contains a fragment (#)")
    # A user name can look like the host: https://allowed.example@evil.example/
    if "@" in url.partition("://")[2].partition("/")[0].partition("?")[0]:
        raise UrlError("it contains a user name")
    web = _WEB.fullmatch(url)
    if web is None:
        raise UrlError("it is not an http, https, gs or s3 URL with a plain host name")
    query = "" if web["query"] is None else f"?{_normal_escapes(web['query'])}"
    return f"{_authority(web)}{_normal_path(web['path'] or '/')}{query}"


def is_inside(url: str, prefix: str) -> bool:
    """Return whether a URL is a prefix itself, or below it. Whole path segments are compared.

    Args:
        url: A URL in normal form.
        prefix: A URL in normal form, with or without a trailing slash.
    """
    path, base = url.partition("?")[0], prefix.rstrip("/")
    return url == prefix or path == base or path.startswith(f"{base}/")


def is_public_host(url: str) -> bool:
    """Return whether a URL in normal form is an `https` URL at a possibly public domain name.

    IP addresses in any spelling (`2852039166`, `0xa9fea9fe`, `[::1]`), `localhost`, names without
    a dot, and top-level domains that are private by convention are not public.

    Args:
        url: A URL in normal form.
    """
    host = url.removeprefix("https://").partition("/")[0].partition("?")[0]
    labels = host.partition(":")[0].split(".")
    private = {"internal", "local", "localhost", "localdomain", "lan", "home", "corp", "arpa"}
    top = labels[-1]
    return (
        url.startswith("https://")
        and len(labels) > 1
        and top not in private
        and re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", top) is not None
    )


def redact(url: str) -> str:
    """Remove user name, password and query from a URL for messages, and truncate it."""
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0][:200]


def _authority(web: re.Match[str]) -> str:
    scheme = web["scheme"].lower()
    host = (web["name"] or "").lower()
    if web["v6"]:
        try:
            host = f"[{IPv6Address(web['v6']).compressed}]"
        except AddressValueError:
            raise UrlError("its host is not a valid IPv6 address") from None
    port = int(web["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise UrlError("its port is not between 1 and 65535")
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")


def _normal_escapes(text: str) -> str:
    """Decode escapes of unreserved characters, and convert other escapes to upper case."""
    if _STRAY_PERCENT.search(text):
        raise UrlError("it contains a percent sign that is not part of an escape")

    def normalize(escape: re.Match[str]) -> str:
        code = int(escape[1], 16)
        return chr(code) if code in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(normalize, text)


def _normal_path(path: str) -> str:
    path = _normal_escapes(path)
    if _AMBIGUOUS.search(path):
        raise UrlError(
            "it contains an escaped separator, an escaped control character or a double escape"
        )
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:  # overlong forms, such as %C0%AE for a dot, are not UTF-8
        raise UrlError("its escapes are not valid UTF-8") from None
    # Remove dot segments (RFC 3986 section 5.2.4): `..` removes the segment before it, if any.
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        # Some servers strip parameters from segments, which turns `..;x` into `..`.
        if segment.partition(";")[0] in (".", "..") and ";" in segment:
            raise UrlError("it contains a dot segment with parameters")
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")  # /a/. is the folder /a/
    return "/" + "/".join(kept)


def _checked_object_name(name: str) -> str:
    """Check the name of an object, with a leading slash, and return it.

    Dot segments and special characters are legal in object names, but HTTP clients may interpret
    such a name as a path or URL.
    """
    if not name.isprintable() or re.search(r"[\\%?#]", name):
        raise UrlError("its object name contains \\, %, ?, # or a control character")
    if any(segment in (".", "..") for segment in name.split("/")):
        raise UrlError("its object name contains a dot segment")
    return name
