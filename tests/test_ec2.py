"""The metadata service: a real server on loopback that wants its token, one that hangs, one that talks rubbish."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import OpenerDirector

import pytest

from smml.errors import UserError
from smml.hardware import ec2
from smml.hardware.machine import Ec2

TOKEN = "AQAEAexample=="
ANSWERS = {
    "instance-type": "g5.xlarge",
    "placement/region": "eu-west-1",
    "placement/availability-zone": "eu-west-1b",
    "instance-life-cycle": "spot",
}


class Service(BaseHTTPRequestHandler):
    """IMDSv2: a PUT gives the token, a GET without it is refused with 401."""

    answers: dict[str, str] = ANSWERS
    requests: list[str]

    def do_PUT(self) -> None:
        self.requests.append(f"PUT {self.path}")
        wanted = self.path == "/latest/api/token" and self.headers.get(
            "X-aws-ec2-metadata-token-ttl-seconds"
        )
        self.reply(200 if wanted else 400, TOKEN)

    def do_GET(self) -> None:
        self.requests.append(f"GET {self.path}")
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            return self.reply(401, "")
        answer = self.answers.get(self.path.removeprefix("/latest/meta-data/"))
        return self.reply(404 if answer is None else 200, answer or "")

    def reply(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def service(**changes: str | None) -> type[Service]:
    answers = {name: text for name, text in (ANSWERS | changes).items() if text is not None}
    return type("Handler", (Service,), {"answers": answers, "requests": []})


def dmi(root: Path, **files: str) -> Path:
    folder = root / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    return root


@pytest.fixture
def no_network(monkeypatch):
    """Any request is an error, and is remembered."""
    asked = []

    def refuse(self: OpenerDirector, request: object, *_: object, **__: object) -> None:
        asked.append(request)
        raise OSError("no network in this test")

    monkeypatch.setattr(OpenerDirector, "open", refuse)
    return asked


def test_service_with_token(tmp_path):
    handler = service()
    with serve(handler) as url:
        found = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url + "/"})
    assert found == (
        Ec2(
            instance_type="g5.xlarge",
            region="eu-west-1",
            availability_zone="eu-west-1b",
            lifecycle="spot",
        ),
        None,
    )
    assert handler.requests[0] == "PUT /latest/api/token"


def test_a_proxy_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serve(service()) as url:
        found, _ = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})
    assert found.instance_type == "g5.xlarge"


def test_what_the_service_does_not_have_is_none(tmp_path):
    changes = {
        "instance-life-cycle": None,
        "placement/region": "<html>",
        "placement/availability-zone": "us-west-2-lax-1a",
    }
    with serve(service(**changes)) as url:
        found, problem = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})
    assert found == Ec2(instance_type="g5.xlarge", availability_zone="us-west-2-lax-1a")
    assert problem is None


@pytest.mark.parametrize(
    "answer", [None, "<html>captive portal</html>", "x" * 5000, "\u2603.large"]
)
def test_rubbish_is_not_an_instance(tmp_path, answer):
    with serve(service(**{"instance-type": answer})) as url:
        found, problem = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})
    assert found is None
    assert problem.fix


def test_refused_token_is_said(tmp_path):
    class Refuses(Service):
        requests: list[str] = []  # noqa: RUF012

        def do_PUT(self) -> None:
            self.reply(403, "")

    with serve(Refuses) as url:
        found, problem = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})
    assert found is None
    assert "403" in problem.text


def test_token_that_is_no_header_value(tmp_path):
    class Talks(Service):
        requests: list[str] = []  # noqa: RUF012

        def do_PUT(self) -> None:
            self.reply(200, "two lines\r\nX-Evil: 1")

    with serve(Talks) as url:
        found, problem = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})
    assert found is None
    assert "not one word" in problem.text
    assert Talks.requests == []


def test_hanging_service_is_given_up(tmp_path, monkeypatch):
    release = threading.Event()

    class Hangs(Service):
        requests: list[str] = []  # noqa: RUF012

        def do_PUT(self) -> None:
            release.wait(30)

    monkeypatch.setattr(ec2, "TIMEOUT_S", 0.05)
    with serve(Hangs) as url:
        try:
            found, problem = ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})
        finally:
            release.set()
    assert found is None
    assert "does not answer" in problem.text
    assert "hop" in problem.fix


def test_off_ec2_nothing_is_asked(tmp_path, no_network):
    dmi(tmp_path, sys_vendor="QEMU", product_name="Standard PC")
    assert ec2.read(tmp_path, {}) == (None, None)
    assert no_network == []


def test_unreachable_service_leaves_the_type_from_dmi(tmp_path, no_network):
    dmi(tmp_path, sys_vendor="Amazon EC2", product_name="m7g.large")
    found, problem = ec2.read(tmp_path, {})
    assert found == Ec2(instance_type="m7g.large")
    assert "no network in this test" in problem.text
    assert [request.full_url for request in no_network] == [
        "http://169.254.169.254/latest/api/token"
    ]


def test_disabled_service_is_not_asked(tmp_path, no_network):
    dmi(tmp_path, sys_vendor="Amazon EC2", product_name="c5.metal")
    assert ec2.read(tmp_path, {"AWS_EC2_METADATA_DISABLED": "True"}) == (
        Ec2(instance_type="c5.metal"),
        None,
    )
    assert no_network == []


@pytest.mark.parametrize(
    "files", [{"sys_vendor": "Xen", "bios_version": "4.11.amazon"}, {"board_vendor": "Amazon EC2"}]
)
def test_other_signs_of_ec2_are_enough_to_ask(tmp_path, no_network, files):
    found, problem = ec2.read(dmi(tmp_path, **files), {})
    assert found is None
    assert problem is not None
    assert len(no_network) == 1


def test_xen_instance_is_known_by_its_uuid(tmp_path, no_network):
    path = tmp_path / "sys/hypervisor/uuid"
    path.parent.mkdir(parents=True)
    path.write_text("ec2abc00-0000\n")
    ec2.read(tmp_path, {})
    assert len(no_network) == 1


@pytest.mark.parametrize(
    "endpoint", ["169.254.169.254", "file:///etc/hostname", "http:///", "http:// x"]
)
def test_endpoint_that_is_no_url(tmp_path, no_network, endpoint):
    with pytest.raises(UserError, match="AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        ec2.read(tmp_path, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint})
    assert no_network == []
