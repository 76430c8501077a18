"""URLs of requests from outside, in one spelling each, so that they can be compared by prefix.

A URL has many spellings: `%2e%2e` is `..`, and `HTTPS://Host:443/` is `https://host/`. Of others
readers disagree what they mean: `\\`, `https://allowed@evil/`, `%252e`. So a URL is first brought
into the normal form of RFC 3986 section 6.2, what readers disagree about is refused, and the normal
form is what is compared, stored and opened.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import unquote_to_bytes

_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
"""All that RFC 3986 lets stand in a URL."""
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
"""Escapes that some readers take for a separator, for a control character, or unescape twice."""


class UrlError(ValueError):
    """A URL that has no normal form, or that two readers may understand differently."""


def normalize_url(url: str) -> str:
    """Bring a URL into its normal form (RFC 3986 sections 6.2.2 and 6.2.3).

    Scheme and host are lower case, default ports are left out, escapes of unreserved characters are
    undone, other escapes are upper case, dot segments are removed. Names at `gs://` and `s3://` are
    taken literally, as the buckets do.

    Args:
        url: An `http`, `https`, `gs` or `s3` URL in any spelling.

    Returns:
        The URL's one spelling; a function of what it names.

    Raises:
        UrlError: The URL is of another scheme or malformed, or holds what readers disagree about:
            user names, fragments, backslashes, escaped separators, double escapes, a dot at the end
            of its host.
    """
    bucket = _BUCKET.fullmatch(url)
    if bucket is not None:
        place = f"{bucket['scheme']}://{bucket['bucket']}".lower()
        return place + _literal_name(bucket["name"] or "")
    if not _CHARACTERS.fullmatch(url):
        raise UrlError("it holds characters that no URL may hold")
    if "#" in url:
        raise UrlError("it holds a fragment (#)")
    if "@" in url.partition("://")[2].partition("/")[0].partition("?")[0]:
        raise UrlError("it names a user before its host")
    web = _WEB.fullmatch(url)
    if web is None:
        raise UrlError("it is not an http, https, gs or s3 URL with a plain host name")
    query = "" if web["query"] is None else f"?{_normal_escapes(web['query'])}"
    return f"{_authority(web)}{_normal_path(web['path'] or '/')}{query}"


def is_inside(url: str, prefix: str) -> bool:
    """Whether a URL names what a prefix names, or something below it.

    Args:
        url: A URL in normal form.
        prefix: Another; with or without a slash at its end. Whole path segments are compared.
    """
    path, base = url.partition("?")[0], prefix.rstrip("/")
    return url == prefix or path == base or path.startswith(f"{base}/")


def is_public_host(url: str) -> bool:
    """Whether a URL in normal form is `https` at a domain name that can be a public one.

    Addresses in any spelling (`2852039166`, `0xa9fea9fe`, `[::1]`), `localhost`, names without a
    dot and those that are private by convention are not.
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
    """A URL as messages may show it: without user, password and query, and of bounded length."""
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0][:200]


def _authority(web: re.Match[str]) -> str:
    scheme = web["scheme"].lower()
    host = (web["name"] or "").lower()
    if web["v6"]:
        try:
            host = f"[{IPv6Address(web['v6']).compressed}]"
        except AddressValueError:
            raise UrlError("its host is not an IPv6 address") from None
    port = int(web["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise UrlError("its port does not exist")
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")


def _normal_escapes(text: str) -> str:
    """The text without escapes of unreserved characters, and the other escapes in upper case."""
    if _STRAY_PERCENT.search(text):
        raise UrlError("it holds a percent sign that escapes nothing")

    def settle(escape: re.Match[str]) -> str:
        code = int(escape[1], 16)
        return chr(code) if code in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(settle, text)


def _normal_path(path: str) -> str:
    path = _normal_escapes(path)
    if _AMBIGUOUS.search(path):
        raise UrlError("it escapes a separator or a control character, or escapes twice")
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:  # overlong forms, such as %C0%AE for a dot, are not UTF-8
        raise UrlError("its escapes are not UTF-8") from None
    # RFC 3986 section 5.2.4: `..` takes the segment before it away, and never more than there are.
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment.partition(";")[0] in (".", "..") and ";" in segment:
            raise UrlError("it holds a dot segment with parameters")
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _literal_name(name: str) -> str:
    """An object's name with the slash before it. Clients that speak HTTP may take it for a path."""
    if not name.isprintable() or re.search(r"[\\%?#]", name):
        raise UrlError("the name in its bucket holds \\, %, ?, # or a control character")
    if any(segment in (".", "..") for segment in name.split("/")):
        raise UrlError("the name in its bucket holds a dot segment")
    return name
