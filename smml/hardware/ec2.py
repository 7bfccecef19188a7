"""Which EC2 instance this is: from the instance metadata service (IMDSv2), asked only where DMI says EC2."""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from smml.errors import UserError
from smml.hardware.machine import Ec2, Note

ENDPOINT = "http://169.254.169.254"
TIMEOUT_S = 1.0
HOP_LIMIT = "in a container, allow two hops: aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2"
INSTANCE_TYPE = r"[a-z][a-z0-9-]*\.[a-z0-9-]+"
REGION = r"[a-z]{2}(-[a-z]+)+-\d"
ZONE = REGION + r"(-[a-z]+-\d)?[a-z]"  # a local zone is called us-west-2-lax-1a


def read(
    root: Path = Path("/"), environ: Mapping[str, str] = os.environ
) -> tuple[Ec2 | None, Note | None]:
    """The instance, and why the metadata service did not tell more; (None, None) off EC2, without any network.

    AWS_EC2_METADATA_SERVICE_ENDPOINT chooses another service (and skips the look at DMI);
    AWS_EC2_METADATA_DISABLED=true forbids asking. Raises UserError for an endpoint that is not a URL.
    """
    endpoint = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
    if endpoint and not re.match(r"https?://[^/\s]+", endpoint):
        raise UserError(
            f"AWS_EC2_METADATA_SERVICE_ENDPOINT={endpoint} is not a URL: it must look like {ENDPOINT}; correct or unset it."
        )
    local = from_dmi(root)
    if not endpoint and local is None and not _on_ec2(root):
        return None, None
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return local, None
    try:
        found = _ask(endpoint.rstrip("/") or ENDPOINT)
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        text = f"the EC2 metadata service does not answer ({error}): region and purchase option unknown"
        return local, Note(text=text, fix=HOP_LIMIT)
    if found is None:
        text = "what answers as EC2 metadata service does not name an instance type"
        return local, Note(text=text, fix="correct or unset AWS_EC2_METADATA_SERVICE_ENDPOINT")
    return found, None


def from_dmi(root: Path = Path("/")) -> Ec2 | None:
    """The instance type that a Nitro or bare-metal instance carries as its DMI product name; no network."""
    if _dmi(root, "sys_vendor") != "Amazon EC2":
        return None
    name = _dmi(root, "product_name")
    return Ec2(instance_type=name) if re.fullmatch(INSTANCE_TYPE, name) else None


def _on_ec2(root: Path) -> bool:
    vendors = {_dmi(root, name) for name in ("sys_vendor", "board_vendor")}
    if "Amazon EC2" in vendors or _dmi(root, "bios_version").endswith(".amazon"):
        return True
    return _text(root / "sys/hypervisor/uuid").lower().startswith("ec2")  # Xen instances


def _ask(endpoint: str) -> Ec2 | None:
    token = _fetch(
        f"{endpoint}/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    headers = {"X-aws-ec2-metadata-token": token}

    def value(path: str, pattern: str) -> str | None:
        try:
            text = _fetch(f"{endpoint}/latest/meta-data/{path}", "GET", headers)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        return text if re.fullmatch(pattern, text) else None

    instance_type = value("instance-type", INSTANCE_TYPE)
    if instance_type is None:
        return None
    return Ec2(
        instance_type=instance_type,
        region=value("placement/region", REGION),
        availability_zone=value("placement/availability-zone", ZONE),
        lifecycle=value("instance-life-cycle", r"[a-z-]+"),
    )


def _fetch(url: str, method: str, headers: dict[str, str]) -> str:
    """The first KiB of an answer; no proxy may stand between an instance and its own metadata."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            text = response.read(1024).decode("ascii").strip()
    except ValueError as error:  # a token with line breaks would not fit into a header
        raise HTTPException(str(error)) from error
    if method == "PUT" and not re.fullmatch(r"[\x21-\x7e]+", text):
        raise HTTPException("the token is not one word")
    return text


def _dmi(root: Path, name: str) -> str:
    return _text(root / "sys/class/dmi/id" / name)


def _text(path: Path) -> str:
    """The file's text, stripped; empty where it is missing or closed to this user."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
