"""Who may ask what, before anything is done with a request.

Rules:
1. The socket in the data folder is for the node's own user and root, as the kernel says who they are; they may do all.
2. On an address, `Host` must be an address, `localhost` or a name of the settings: a web page whose name leads here is
   refused (DNS rebinding). So is a request that says that a web page of another origin made it. CORS is off.
3. Who writes says `Content-Type: application/json`, or PUT: no web page can send either elsewhere without asking first.
4. Where a token is needed, it says what its bearer may do. Failures cost: an address has ten, and one a second more;
   beyond, nothing that it shows is looked at but tokens that were right before. Who shows wrong ones all the time would
   keep out all who share its address: those of one machine, or behind one proxy.
5. The files of the page (`aqua_compat.http.ui`) are no secret, nor is whether the node is ready, which is asked by what
   has no token: of who asks for them, only the `Host` is looked at. It may be absent, as in HTTP/1.0, which HAProxy's
   checks speak: no browser leaves it out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cachetools import LRUCache

from aqua_compat.http.message import JSON, AccessLevel, HttpRequest
from aqua_compat.http.problems import Problem
from aqua_compat.http.tokens import MAX_TOKENS, Tokens
from overlay.limits.token_bucket import TokenBuckets

FAILURES: Final = 10.0  # of an address at once
FAILURES_PER_SECOND: Final = 1.0
_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})


class AddressGuard:
    """Judges the requests that come in on an address."""

    def __init__(self, tokens: Tokens, hosts: tuple[str, ...], *, is_loopback: bool, now: Callable[[], float]) -> None:
        """`is_loopback`: without any tokens everybody on this machine may do all. `now`: seconds that never go back."""
        self._tokens = tokens
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._is_loopback = is_loopback
        self._now = now
        self._failures = TokenBuckets(FAILURES_PER_SECOND, FAILURES)
        self._right: LRUCache[bytes, None] = LRUCache(MAX_TOKENS)  # hashes of tokens that were

    def judged(self, request: HttpRequest, remote: str, *, is_public: bool = False, counts: bool = True) -> HttpRequest:
        """The request with what its maker may do. Raises Problem, StorageError. `remote`: the address it comes from.

        `is_public`: anybody may have what is asked for, and a link elsewhere may lead to it (rule 5). `counts`: whether
        a wrong token costs; not where the same request is judged again.
        """
        if is_public and "host" not in request.headers:
            return request
        host = request.headers.get("host", "")
        if not self._is_ours(host):
            raise Problem(
                421, "host-unknown", f"{host[:100]!r} is no name of this node; set http.hosts if it should be one"
            )
        if is_public:
            return request
        origin = request.headers.get("origin")
        is_foreign = origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
        if is_foreign or request.headers.get("sec-fetch-site") in _OTHER_SITES:
            raise Problem(403, "origin-refused", "web pages of other origins may not use this node")
        return request._replace(grant=self._grant(request, remote, counts=counts), client=remote)

    def _grant(self, request: HttpRequest, remote: str, *, counts: bool) -> AccessLevel:
        given = request.headers.get("authorization", "")
        if not given and "x-consul-token" in request.headers:  # as Consul's clients have it
            given = f"Bearer {request.headers['x-consul-token']}"
        scheme, _, token = given.partition(" ")
        if not given and self._is_loopback and not self._tokens.entries():
            return AccessLevel.OPERATE
        digest = sha256(token.encode()).digest()
        if digest not in self._right and not self._failures.has(remote, self._now()):
            wait = self._failures.wait(remote, self._now())
            raise Problem(429, "rate-exceeded", "too many wrong tokens came from this address", retry_after=wait)
        grant = self._tokens.grant_of(token.strip()) if scheme.lower() == "bearer" else None
        if grant is None:
            self._right.pop(digest, None)  # withdrawn
            if given and counts:
                self._failures.take(remote, self._now())
            raise Problem(
                401,
                "token-wrong" if given else "token-missing",
                "the token isn't one of this node's" if given else "this needs a token: Authorization: Bearer TOKEN",
                headers=[("WWW-Authenticate", 'Bearer realm="aqua-registry"')],
            )
        self._right[digest] = None
        return grant

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if port and not (port.isascii() and port.isdigit()):
            return False
        name = name.lower().rstrip(".")
        return name == "localhost" or name in self._hosts or _is_address(name)


def check_may(request: HttpRequest, needed: AccessLevel) -> None:
    """Raises Problem when the maker of a request may not do what needs this."""
    if request.grant < needed:
        raise Problem(
            403,
            "not-permitted",
            f"the token may {request.grant.name.lower()}; this needs one that may {needed.name.lower()}",
        )
    if needed is not AccessLevel.READ and request.body and request.method != "PUT" and not _is_json(request):
        raise Problem(415, "media-type", f"the body must be {JSON}, and say so in Content-Type")


def _is_json(request: HttpRequest) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON


@lru_cache(64)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
