"""The fourteen steps: every local one runs and does what it says, every request is valid, nothing is sent unasked."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from smml.cost.steps import model
from smml.cost.steps.command import steps as command
from smml.cost.steps.fourteen import STEPS, step
from smml.cost.steps.project import Project
from smml.cost.steps.validate import Request, problems, send
from smml.data.prices import prices
from smml.errors import UserError

# Rows of the mapping sheet: the step's name, and what its AWS column names.
SHEET = {
    1: ("environment", "notebook"),
    2: ("hardware", "EC2"),
    3: ("data storage", "FSx for Lustre"),
    4: ("preprocessing", "Step Functions"),
    5: ("model framework", "container"),
    6: ("training", "Spot"),
    7: ("hyperparameter tuning", "tuning jobs"),
    8: ("evaluation", "Batch Transform"),
    9: ("deployment", "API Gateway"),
    10: ("monitoring and logging", "CloudTrail"),
    11: ("scaling", "target tracking"),
    12: ("cost management", "Budgets"),
    13: ("security", "KMS"),
    14: ("collaboration", "CodeBuild"),
}


@pytest.mark.parametrize("number", SHEET)
def test_every_row_of_the_sheet_is_a_step_with_both_sides(number):
    name, aws = SHEET[number]
    one = step(number)
    assert one.name == name
    assert aws in one.on_aws
    assert one.here
    assert one.take_here
    assert one.take_aws
    assert one.requests(Project())


@pytest.mark.parametrize("one", STEPS, ids=lambda s: s.name)
def test_every_step_runs_here_by_itself(one, tmp_path):
    outcome = one.run(tmp_path)
    assert outcome.said
    assert "\n" not in outcome.said
    assert outcome.figures
    assert all(np.isfinite(value) for value in outcome.figures.values())


def figures(number, folder):
    return step(number).run(folder).figures


def test_preprocessing_goes_on_where_it_was(tmp_path):
    found = figures(4, tmp_path)
    assert found["tokens"] == len(model.text())
    assert found["rewritten"] == 0
    whole = np.concatenate([np.load(path) for path in model.write_shards(tmp_path / "shards")])
    model.write_shards(tmp_path / "shards")[0].unlink()
    again = np.concatenate([np.load(path) for path in model.write_shards(tmp_path / "shards")])
    assert (whole == again).all()


def test_training_learns_what_can_be_learned_and_resumes_exactly(tmp_path):
    found = figures(6, tmp_path)
    assert found["first_loss"] == pytest.approx(np.log(model.VOCABULARY))
    assert found["lowest_loss"] < found["last_loss"] < 1.1 * found["lowest_loss"]
    assert found["resumed_differs"] == 0


def test_the_gradient_is_that_of_the_loss():
    tokens = model.tokenise(model.text()[:5000])
    settings = model.Settings(learning_rate=1.0, batch_size=500, steps=1)
    random = np.random.default_rng(1)
    weights = random.normal(size=(model.VOCABULARY, model.VOCABULARY))
    (_, after, loss), *_ = model.train(tokens, settings, weights)
    direction = random.normal(size=weights.shape)

    def batch_loss(w):
        (_, _, value), *_ = model.train(tokens, settings, w)
        return value

    small = 1e-5
    slope = (batch_loss(weights + small * direction) - batch_loss(weights - small * direction)) / (
        2 * small
    )
    assert ((weights - after) * direction).sum() == pytest.approx(slope, rel=1e-5)
    assert loss == pytest.approx(batch_loss(weights))


def test_no_weights_go_below_the_entropy_of_the_pairs():
    tokens = model.tokenise(model.text()[:20_000])
    counted = model.pairs(tokens[:-1], tokens[1:])
    best = np.log(np.maximum(counted, 1e-12))
    assert model.mean_loss(best, tokens) == pytest.approx(model.lowest_loss(tokens))
    assert model.mean_loss(best + 0.1 * np.eye(model.VOCABULARY), tokens) > model.lowest_loss(
        tokens
    )


def test_steps_judge_by_themselves(tmp_path):
    assert 1 < figures(8, tmp_path)["perplexity"] < 15
    assert figures(9, tmp_path)["answered_u"] == 1, "after q comes u"
    drift = figures(10, tmp_path)
    assert drift["quiet"] < 0.25 < drift["loud"]
    assert figures(13, tmp_path) == {"others_may_read": 0, "change_found": 1}
    assert figures(14, tmp_path)["same"] == 1
    assert figures(7, tmp_path)["best"] not in (10.0, 300.0), "neither too small nor too large"


ALL = [(one, request) for one in STEPS for request in one.requests(Project())]


@pytest.mark.parametrize(
    ("one", "request_"), ALL, ids=[f"{one.number}-{request.name}" for one, request in ALL]
)
def test_every_request_is_valid(one, request_):
    assert problems(request_) == []
    assert request_.why


def test_the_jobs_run_on_spot_with_a_checkpoint_and_everything_carries_the_tag():
    (training,) = step(6).requests(Project())
    assert training.parameters["EnableManagedSpotTraining"]
    assert training.parameters["CheckpointConfig"]["S3Uri"].startswith("s3://")
    assert training.parameters["StoppingCondition"]["MaxWaitTimeInSeconds"] >= 3600
    made = [r for _, r in ALL if r.service == "sagemaker"]
    assert all(r.parameters["Tags"] == Project().tags for r in made)


def test_no_request_uses_what_has_ended():
    operations = {request.operation for _, request in ALL}
    assert not operations & {"CreateMonitoringSchedule", "CreateDataQualityJobDefinition"}
    assert not any("DebugHookConfig" in request.parameters for _, request in ALL)


TRAINING = step(6).requests(Project())[0]
BROKEN = {
    "missing field": ({"RoleArn": None}, 'Missing required parameter in input: "RoleArn"'),
    "unknown field": ({"Colour": "red"}, 'Unknown parameter in input: "Colour"'),
    "wrong type": ({"EnableManagedSpotTraining": "yes"}, "Invalid type for parameter"),
    "pattern": ({"TrainingJobName": "a name"}, "it must match"),
    "enumeration": (
        {"ResourceConfig": {"InstanceType": "ml.x.9", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        "ml.x.9",
    ),
    "too long": ({"TrainingJobName": "a" * 100}, "at most 63"),
    "too small": ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "valid min value: 1"),
}


@pytest.mark.parametrize(("change", "named"), BROKEN.values(), ids=BROKEN)
def test_a_broken_request_is_found(change, named):
    fields = TRAINING.parameters | change
    broken = replace(TRAINING, parameters={k: v for k, v in fields.items() if v is not None})
    assert any(named in problem for problem in problems(broken)), problems(broken)


@pytest.mark.parametrize(
    ("service", "operation", "named"),
    [("sagemeker", "X", "botocore knows no service"), ("s3", "MakeBucket", "has no operation")],
)
def test_an_unknown_operation_is_named(service, operation, named):
    with pytest.raises(UserError, match=named):
        problems(Request(service, operation, {}))


def test_nothing_is_sent_without_an_endpoint_or_when_broken():
    with pytest.raises(UserError, match="no endpoint is named"):
        send(TRAINING, "")
    with pytest.raises(UserError, match="is not sent"):
        send(replace(TRAINING, parameters={}), "http://127.0.0.1:1")


KEYS = {"aws_access_key_id": "example", "aws_secret_access_key": "example"}


def test_a_request_arrives_at_the_endpoint_that_is_named():
    got = []

    class StandIn(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["X-Amz-Target"], json.loads(body)))
            answer = (
                b'{"TrainingJobArn": "arn:aws:sagemaker:us-east-1:111122223333:training-job/x"}'
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), StandIn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        answer = send(TRAINING, f"http://127.0.0.1:{port}", **KEYS)
        server.shutdown()
    assert answer["TrainingJobArn"].endswith("training-job/x")
    assert got == [("SageMaker.CreateTrainingJob", TRAINING.parameters)]


def test_moto_answers_every_request_whose_resources_it_can_make():
    from moto.server import ThreadedMotoServer

    server, answered = ThreadedMotoServer(port=0), 0
    server.start()
    try:
        host, port = server.get_host_and_port()
        for one in STEPS:
            for request in one.requests(Project(account="123456789012")):
                if request.operation == "CreateVpcEndpoint":
                    continue  # it names a network that must be there
                answer = send(request, f"http://{host}:{port}", **KEYS)
                assert answer["ResponseMetadata"]["HTTPStatusCode"] in (200, 201)
                answered += 1
    finally:
        server.stop()
    assert answered == len(ALL) - 1


def test_prices_are_named_with_their_date_and_absent_ones_are_said():
    known = {row.item for row in prices(region="us-east-1", kind="on-demand")}
    for one in STEPS:
        for item, line in zip(one.priced, one.costs(), strict=True):
            assert line.startswith(item)
            assert ("no sourced price" in line) == (item not in known)
    elsewhere = step(6).costs("ap-southeast-4")
    assert any("no sourced price in ap-southeast-4" in line for line in elsewhere)


def test_there_is_no_fifteenth_step():
    with pytest.raises(UserError, match="give 1 to 14"):
        step(15)


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_shows_both_sides_or_one(tmp_path):
    both = run("3", "5", "--folder", str(tmp_path))
    assert both.exit_code == 0
    assert "3. data storage: here when" in both.output
    assert "here: 4.19 MB written" in both.output
    assert "s3:CreateBucket, objects: valid" in both.output
    assert "here: " not in run("5", "--no-here").output.replace("here when", "")
    assert "AWS:  " not in run("5", "--no-aws").output


def test_the_local_side_needs_no_torch():
    code = (
        "import sys; from smml.cost.steps.fourteen import STEPS; [s.run() for s in STEPS[1:5]]; "
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
