"""Checksums in every form that catalogues write."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.transfer.checksum import parse_checksum

CONTENT = b"a band"
CODES = {
    "sha1": "1114",
    "sha256": "1220",
    "sha512": "1340",
    "sha3_512": "1440",
    "sha3_256": "1620",
    "md5": "d50110",
}


@pytest.mark.parametrize("algorithm", CODES)
def test_a_multihash_names_its_algorithm(algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    assert parse_checksum(CODES[algorithm] + digest) == (algorithm, digest)
    assert parse_checksum((CODES[algorithm] + digest).upper()) == (algorithm, digest)


@pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha-256", "sha512"])
def test_a_prefix_names_it_too(algorithm: str) -> None:
    name = algorithm.replace("-", "")
    digest = hashlib.new(name, CONTENT).hexdigest()
    assert parse_checksum(f"{algorithm}:{digest}") == (name, digest)


@pytest.mark.parametrize("algorithm", CODES)
def test_a_multihash_may_say_that_it_is_one(algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    assert parse_checksum(f"multihash:{CODES[algorithm]}{digest}") == (algorithm, digest)
    assert parse_checksum(f"Multihash:{CODES[algorithm]}{digest}".upper()) == (algorithm, digest)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("sha2-256", "sha256"), ("sha2-512", "sha512"), ("sha3-256", "sha3_256")],
)
def test_names_of_the_multihash_table_are_understood(name: str, algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    assert parse_checksum(f"{name}:{digest}") == (algorithm, digest)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_bare_hex_is_known_by_its_length(algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    assert parse_checksum(digest) == (algorithm, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1220",
        "1220abcd",
        "d501" + "00" * 33,
        "md5:" + "00" * 32,
        "crc32:00000000",
        "not hex",
        "ff" * 34,
        "122",
        "multihash:",
        "multihash:1220abcd",
        "multihash:" + "00" * 32,
    ],
)
def test_what_is_malformed_or_unknown_is_nothing(text: str) -> None:
    assert parse_checksum(text) is None


@given(st.text(max_size=80) | st.binary(max_size=70).map(bytes.hex))
def test_no_text_is_an_error_and_no_digest_is_of_the_wrong_size(text: str) -> None:
    found = parse_checksum(text)
    assert found is None or len(found.digest) == 2 * hashlib.new(found.algorithm).digest_size
