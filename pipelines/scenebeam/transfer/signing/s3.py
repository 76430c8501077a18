"""Signer of Amazon S3: objects by their plain HTTPS URL, signed with AWS signature version 4.

Credentials are those that botocore finds: environment, profile, or the role of the machine.
AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL name another server that speaks S3.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3

from scenebeam.errors import ReadError
from scenebeam.extras import import_extra
from scenebeam.transfer.signing.base import SignedRequest

_PURPOSE = "signing requests for s3://"


class _ObjectLocation(NamedTuple):
    url: str
    region: str
    own_endpoint: bool
    """Whether the environment names the server."""


def unsigned(bucket: str, key: str) -> SignedRequest:
    """Return the plain URL of an object in a public bucket."""
    location = _locate(bucket, key)
    return SignedRequest(location.url, trusted=location.own_endpoint)


def sign(bucket: str, key: str, *, requester_pays: bool = False) -> SignedRequest:
    """Sign a GET request for an object.

    Args:
        bucket: Name of the bucket.
        key: Key of the object.
        requester_pays: Accept that the reader is charged for the transfer.

    Raises:
        ReadError: There are no credentials, or the bucket's region is unknown (not permanent).
    """
    location = _locate(bucket, key)
    credentials = _session().get_credentials()
    if credentials is None:
        raise ReadError(
            f"s3://{bucket}/{key} requires a signature, and there are no credentials: "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    payer = {"x-amz-request-payer": "requester"} if requester_pays else {}
    headers = sigv4_headers(location.url, location.region, credentials, payer)
    return SignedRequest(location.url, headers, trusted=location.own_endpoint)


def sign_requester_pays(bucket: str, key: str) -> SignedRequest:
    """Sign a GET request for an object whose transfer is charged to the reader."""
    return sign(bucket, key, requester_pays=True)


def sigv4_headers(
    url: str, region: str, credentials: Any, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Compute the headers of a GET request with AWS signature version 4.

    Args:
        url: The URL to sign.
        region: Region of the bucket.
        credentials: Credentials of botocore.
        headers: Further headers, which are signed and returned too.
    """
    auth = import_extra("botocore.auth", "aws", _PURPOSE)
    awsrequest = import_extra("botocore.awsrequest", "aws", _PURPOSE)
    request = awsrequest.AWSRequest(method="GET", url=url, headers=dict(headers or {}))
    auth.S3SigV4Auth(credentials, "s3", region).add_auth(request)
    return dict(request.headers.items())


def _locate(bucket: str, key: str) -> _ObjectLocation:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        url = f"{endpoint.rstrip('/')}/{bucket}/{quote(key)}"
        return _ObjectLocation(url, os.environ.get("AWS_REGION", "us-east-1"), True)
    region = _bucket_region(bucket)
    url = f"https://{bucket}.s3.{region}.amazonaws.com/{quote(key)}"
    return _ObjectLocation(url, region, False)


@cache
def _session() -> Any:
    """Return botocore's session, which refreshes credentials that expire."""
    return import_extra("botocore.session", "aws", _PURPOSE).Session()


@cache
def _bucket_region(bucket: str) -> str:
    """Look up the region of a bucket. AWS returns it without credentials, even with a 403."""
    try:
        response = urllib3.request(
            "HEAD", f"https://{bucket}.s3.amazonaws.com", redirect=False, timeout=30
        )
    except urllib3.exceptions.HTTPError as error:
        raise ReadError(
            f"the region of s3://{bucket} cannot be looked up: {type(error).__name__}",
            permanent=False,
        ) from None
    return response.headers.get("x-amz-bucket-region") or os.environ.get("AWS_REGION", "us-east-1")
