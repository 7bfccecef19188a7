"""The spot notice of an instance: IMDSv2 as a stand-in on loopback, and the client that polls it or the real one.

Paths, tokens and answers as in the Amazon EC2 User Guide, "Use the Instance Metadata Service" and "Spot Instance
interruption notices": a token by PUT, 401 without it, 404 while there is no notice, then JSON.
"""

import json
import os
import re
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self

from smml.data.limits import limit
from smml.errors import UserError
from smml.hardware.ec2 import ENDPOINT

ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # boto3 reads the same one
TOKEN_HEADER, TTL_HEADER = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
LONGEST_TTL_S = 21_600
ACTION, REBALANCE = "spot/instance-action", "events/recommendations/rebalance"
TIMEOUT_S = 1.0
_TIME = "%Y-%m-%dT%H:%M:%SZ"
Action = Literal["terminate", "stop", "hibernate"]


@dataclass(frozen=True)
class Interruption:
    """What will happen to the instance, and when (UTC)."""

    action: str
    at: datetime


class InstanceMetadata:
    """An IMDSv2 of an imagined spot instance on 127.0.0.1, served while the `with` block lasts.

    Raises UserError for a port that is taken.
    """

    def __init__(self, instance_type: str, availability_zone: str, *, port: int = 0) -> None:
        self._values = {
            "instance-id": "i-" + secrets.token_hex(8) + "0",
            "instance-type": instance_type,
            "instance-life-cycle": "spot",
            "placement/availability-zone": availability_zone,
            "placement/region": availability_zone.rstrip("abcdef"),
        }
        self._tokens: dict[str, float] = {}
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        except OSError as error:
            raise UserError(
                f"port {port} of 127.0.0.1 cannot be used: {error.strerror}; give another one, or 0 for a free one."
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def endpoint(self) -> str:
        """URL for AWS_EC2_METADATA_SERVICE_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def interrupt(self, action: Action = "terminate", in_s: float | None = None) -> Interruption:
        """From now on the notice stands there; the instance goes in `in_s` seconds, by default the documented time."""
        in_s = limit("spot_notice").value if in_s is None else in_s
        at = datetime.now(UTC) + timedelta(seconds=in_s)
        self._values[ACTION] = json.dumps({"action": action, "time": at.strftime(_TIME)})
        return Interruption(action, at)

    def recommend_rebalance(self) -> None:
        """From now on the instance is at an elevated risk of interruption."""
        self._values[REBALANCE] = json.dumps({"noticeTime": datetime.now(UTC).strftime(_TIME)})

    def forget_tokens(self) -> None:
        """Every token expires at once, as after its time to live."""
        self._tokens.clear()

    def token(self, ttl: str | None) -> tuple[int, str]:
        """Status and body of a PUT for a token that lives `ttl` seconds."""
        if ttl is None or not ttl.isdecimal() or not 1 <= int(ttl) <= LONGEST_TTL_S:
            return 400, ""
        token = secrets.token_urlsafe(40)
        self._tokens[token] = time.monotonic() + int(ttl)
        return 200, token

    def value(self, path: str, token: str | None) -> tuple[int, str]:
        """Status and body of a GET of latest/meta-data/`path`."""
        if self._tokens.get(token or "", 0.0) < time.monotonic():
            return 401, ""
        found = self._values.get(path)
        return (404, "") if found is None else (200, found)


def _handler(service: InstanceMetadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            if self.path != "/latest/api/token":
                self._reply(404, "")
            elif self.headers.get("X-Forwarded-For"):  # IMDSv2 gives no token through a proxy
                self._reply(403, "")
            else:
                self._reply(*service.token(self.headers.get(TTL_HEADER)))

        def do_GET(self) -> None:
            path = self.path.removeprefix("/latest/meta-data/")
            self._reply(*service.value(path, self.headers.get(TOKEN_HEADER)))

        def _reply(self, code: int, text: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class SpotNotice:
    """Asks the metadata service whether this instance will be taken back.

    `endpoint`: where, else AWS_EC2_METADATA_SERVICE_ENDPOINT, else the address that every instance has. Raises UserError
    for one that is no URL.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = (endpoint or os.environ.get(ENDPOINT_VARIABLE) or ENDPOINT).rstrip("/")
        if not re.match(r"https?://[^/\s]+$", self.endpoint):
            raise UserError(
                f"the metadata endpoint is {self.endpoint!r}: it must look like {ENDPOINT}; correct or unset {ENDPOINT_VARIABLE}."
            )
        self._token: str | None = None
        # No proxy may stand between an instance and its own metadata.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def interruption(self) -> Interruption | None:
        """The notice, None while there is none. Raises UserError where nothing answers or the answer is no notice."""
        found = self._read(ACTION, ("action", "time"))
        return found and Interruption(found["action"], _moment(found["time"]))

    def rebalance(self) -> datetime | None:
        """Since when the instance is at an elevated risk, None while it is not; raises UserError as `interruption`."""
        found = self._read(REBALANCE, ("noticeTime",))
        return found and _moment(found["noticeTime"])

    def wait(self, going_on: Callable[[], bool], every_s: float = 5.0) -> Interruption | None:
        """The notice once it comes, asked for `every_s` (AWS recommends 5); None when `going_on` says no before."""
        while going_on():
            found = self.interruption()
            if found:
                return found
            time.sleep(every_s)
        return None

    def _read(self, path: str, fields: tuple[str, ...]) -> dict[str, str] | None:
        url = f"{self.endpoint}/latest/meta-data/{path}"
        try:
            text = self._get(url)
            if text is None:
                return None
            found = json.loads(text)
            if not all(isinstance(found[name], str) for name in fields):
                raise ValueError("fields that are no text")
        except (OSError, HTTPException) as error:
            raise UserError(
                f"{url} does not answer ({error}): run on an EC2 instance, or set {ENDPOINT_VARIABLE}."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{url} answers no notice ({error}): correct {ENDPOINT_VARIABLE}."
            ) from error
        return found

    def _get(self, url: str) -> str | None:
        for fresh in (False, True):
            if self._token is None or fresh:
                ttl = {TTL_HEADER: str(LONGEST_TTL_S)}
                self._token = self._fetch(f"{self.endpoint}/latest/api/token", "PUT", ttl)
            try:
                return self._fetch(url, "GET", {TOKEN_HEADER: self._token})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401 or fresh:  # a token that expired is replaced, once
                    raise
        return None

    def _fetch(self, url: str, method: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(url, method=method, headers=headers)
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return response.read(4096).decode().strip()


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(
            f"{text!r} is no time of a notice ({_TIME}): correct {ENDPOINT_VARIABLE}."
        ) from error
