"""The spot notice: the stand-in keeps IMDSv2's rules, the client finds the notice, and other clients understand it."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest

from smml.aws.instance_metadata import (
    ENDPOINT_VARIABLE,
    TOKEN_HEADER,
    TTL_HEADER,
    InstanceMetadata,
    SpotNotice,
)
from smml.data.limits import limit
from smml.errors import UserError
from smml.hardware import ec2

NOTICE = "/latest/meta-data/spot/instance-action"


@pytest.fixture
def metadata():
    with InstanceMetadata("g5.xlarge", "us-east-1a") as served:
        yield served


def ask(
    served: InstanceMetadata, path: str, method: str = "GET", **headers: str
) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(served.endpoint + path, method=method, headers=named)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token(served: InstanceMetadata) -> dict[str, str]:
    status, text = ask(served, "/latest/api/token", "PUT", **{TTL_HEADER: "60"})
    assert status == 200
    return {TOKEN_HEADER: text}


def test_no_answer_without_a_token(metadata):
    assert ask(metadata, NOTICE)[0] == 401
    assert ask(metadata, NOTICE, **{TOKEN_HEADER: "invented"})[0] == 401
    assert ask(metadata, NOTICE, **token(metadata))[0] == 404, "no notice yet"
    assert ask(metadata, "/latest/meta-data/instance-type", **token(metadata)) == (200, "g5.xlarge")


@pytest.mark.parametrize("ttl", ["0", "21601", "soon", ""])
def test_a_token_needs_a_time_to_live(metadata, ttl):
    assert ask(metadata, "/latest/api/token", "PUT", **{TTL_HEADER: ttl})[0] == 400
    assert ask(metadata, "/latest/api/token", "PUT")[0] == 400
    assert ask(metadata, "/latest/api/other", "PUT", **{TTL_HEADER: "60"})[0] == 404


def test_no_token_through_a_proxy(metadata):
    headers = {TTL_HEADER: "60", "X-Forwarded-For": "10.0.0.1"}
    assert ask(metadata, "/latest/api/token", "PUT", **headers)[0] == 403


def test_the_notice_has_the_documented_form(metadata):
    before = datetime.now(UTC)
    promised = metadata.interrupt("stop")
    status, text = ask(metadata, NOTICE, **token(metadata))
    found = json.loads(text)
    assert status == 200
    assert set(found) == {"action", "time"}
    assert found["action"] == "stop"
    at = datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((at - before).total_seconds() - limit("spot_notice").value) <= 2
    assert promised.action == "stop"


def test_the_client_sees_the_notice_and_the_recommendation(metadata, monkeypatch):
    monkeypatch.setenv(ENDPOINT_VARIABLE, metadata.endpoint)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    notice = SpotNotice()
    assert notice.interruption() is None
    assert notice.rebalance() is None
    metadata.recommend_rebalance()
    assert abs((notice.rebalance() - datetime.now(UTC)).total_seconds()) < 60
    assert notice.interruption() is None, "a recommendation is no notice"
    promised = metadata.interrupt("terminate", in_s=30)
    found = notice.interruption()
    assert found.action == "terminate"
    assert abs((found.at - promised.at).total_seconds()) <= 1


def test_a_token_that_expired_is_replaced(metadata):
    notice = SpotNotice(metadata.endpoint)
    assert notice.interruption() is None
    metadata.forget_tokens()
    metadata.interrupt()
    assert notice.interruption().action == "terminate"


def test_waiting_ends_with_the_notice_or_with_the_work(metadata):
    notice, asked = SpotNotice(metadata.endpoint), []

    def going_on() -> bool:
        asked.append(None)
        if len(asked) == 3:
            metadata.interrupt()
        return len(asked) < 10

    assert notice.wait(going_on, every_s=0.001).action == "terminate"
    assert len(asked) == 3
    assert SpotNotice(metadata.endpoint).wait(lambda: False) is None


def test_the_hardware_look_up_understands_the_stand_in(metadata, tmp_path):
    found, note = ec2.read(tmp_path, {ENDPOINT_VARIABLE: metadata.endpoint})
    assert note is None
    assert (found.instance_type, found.region) == ("g5.xlarge", "us-east-1")
    assert (found.availability_zone, found.lifecycle) == ("us-east-1a", "spot")


def test_a_port_that_is_taken_is_named(metadata):
    port = int(metadata.endpoint.rpartition(":")[2])
    with pytest.raises(UserError, match=rf"port {port} of 127.0.0.1 cannot be used"):
        InstanceMetadata("g5.xlarge", "us-east-1a", port=port)


def test_a_chosen_port_is_used():
    with InstanceMetadata("g5.xlarge", "us-east-1a") as first:
        port = int(first.endpoint.rpartition(":")[2])
    with InstanceMetadata("g5.xlarge", "us-east-1a", port=port) as again:
        assert again.endpoint == f"http://127.0.0.1:{port}"
        assert SpotNotice(again.endpoint).interruption() is None


def test_what_is_no_service_is_named(metadata):
    with pytest.raises(UserError, match="must look like http"):
        SpotNotice("169.254.169.254")
    with InstanceMetadata("g5.xlarge", "us-east-1a") as gone:
        endpoint = gone.endpoint
    with pytest.raises(
        UserError, match=f"does not answer.*run on an EC2 instance, or set {ENDPOINT_VARIABLE}"
    ):
        SpotNotice(endpoint).interruption()


@pytest.mark.parametrize("text", ["soon", "{}", '{"action": "stop", "time": 5}', "[]"])
def test_what_is_no_notice_is_named(metadata, monkeypatch, text):
    monkeypatch.setitem(metadata._values, "spot/instance-action", text)
    with pytest.raises(UserError, match="answers no notice"):
        SpotNotice(metadata.endpoint).interruption()
    monkeypatch.setitem(
        metadata._values, "spot/instance-action", '{"action": "stop", "time": "noon"}'
    )
    with pytest.raises(UserError, match="'noon' is no time of a notice"):
        SpotNotice(metadata.endpoint).interruption()
