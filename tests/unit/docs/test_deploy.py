"""deploy/: what the files tell the processes is what the processes understand."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from gateway.settings import GatewaySettings
from services.billing.settings import BillingSettings
from services.kit.config import Settings, variable
from services.notify.settings import NotifySettings
from services.quota.settings import QuotaSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
SETTINGS: dict[str, type[Settings]] = {
    "billing": BillingSettings,
    "quota": QuotaSettings,
    "notify": NotifySettings,
    "gateway": GatewaySettings,
}
_CHOSEN = {"TOLLWAY_PUBLIC_URL": "https://api.example.com", "TOLLWAY_MAIL_FROM": "billing@example.com"}


@dataclass(frozen=True)
class Part:
    """A process as a file of deploy/ starts it."""

    where: str
    name: str
    module: str
    own: dict[str, str]  # variables that are meant for this part
    shared: dict[str, str]
    secrets: dict[str, str]  # path in the container → name of the secret

    @property
    def environment(self) -> dict[str, str]:
        return {"TOLLWAY_HOST": "0.0.0.0", **self.shared, **self.own}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def _interpolated(text: str) -> str:
    """As Compose does it: `${NAME:-default}`, `${NAME:?why}`."""
    return re.sub(
        r"\$\{(\w+)(?::([-?])([^}]*))?\}",
        lambda m: _CHOSEN.get(m[1], m[3] if m[2] == "-" else ""),
        str(text),
    )


def of_compose() -> Iterator[Part]:
    for name in SETTINGS:
        service = compose()["services"][name]
        yield Part(
            where="compose",
            name=name,
            module=service["command"][-1],
            own={key: _interpolated(value) for key, value in service["environment"].items()},
            shared={},
            secrets={f"/run/secrets/{secret}": secret for secret in service["secrets"]},
        )


def documents() -> list[dict[str, Any]]:
    folder = DEPLOY / "kubernetes"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [each for name in names for each in yaml.safe_load_all((folder / name).read_text())]


def of_kubernetes() -> Iterator[Part]:
    (settings,) = (each["data"] for each in documents() if each["kind"] == "ConfigMap")
    for each in documents():
        if each["kind"] == "Deployment":
            spec = each["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            (secrets,) = (volume["secret"]["items"] for volume in spec["volumes"] if volume["name"] == "secrets")
            (mounted,) = (m["mountPath"] for m in container["volumeMounts"] if m["name"] == "secrets")
            yield Part(
                where="kubernetes",
                name=each["metadata"]["name"],
                module=container["command"][-1],
                own={variable["name"]: variable["value"] for variable in container["env"]},
                shared=dict(settings),
                secrets={f"{mounted}/{item['path']}": item["key"] for item in secrets},
            )


PARTS = [*of_compose(), *of_kubernetes()]
every_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.where}-{part.name}")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/make-secrets makes."""
    folder = tmp_path_factory.mktemp("secrets") / "made"
    given = {
        "STRIPE_API_KEY": "rk_live_fake",
        "STRIPE_WEBHOOK_SECRET": "whsec_fake",
        "TOLLWAY_SMTP_URL": "smtps://u:p@mail.example.com:465",
    }
    command = [str(DEPLOY / "make-secrets"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | given)
    return folder


def test_there_is_every_part() -> None:
    assert [(part.where, part.name) for part in PARTS] == [
        (where, name) for where in ("compose", "kubernetes") for name in SETTINGS
    ]


@every_part
def test_every_variable_that_a_file_names_is_a_setting_of_its_part(part: Part) -> None:
    known = {variable(SETTINGS[part.name], field) for field in SETTINGS[part.name].model_fields}
    assert {name.removesuffix("_FILE") if name not in known else name for name in part.own} <= known
    of_any = {variable(settings, field) for settings in SETTINGS.values() for field in settings.model_fields}
    assert part.shared.keys() <= of_any


@every_part
def test_nothing_of_a_part_is_left_to_a_default_that_means_this_machine(part: Part) -> None:
    settings, told = SETTINGS[part.name], {name.removesuffix("_FILE") for name in part.environment}
    for name, field in settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        if "127.0.0.1" in str(default):
            assert variable(settings, name) in told, name


@every_part
def test_a_part_starts_with_what_the_files_and_the_made_secrets_tell_it(
    part: Part, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("TOLLWAY_", "STRIPE_")) or name == "CATALOG":
            monkeypatch.delenv(name)
    for name, value in part.environment.items():
        if name.endswith("_FILE"):
            value = str(secrets / part.secrets[value])
        monkeypatch.setenv(name, value)
    settings = SETTINGS[part.name]()
    assert settings.rpc_token == (secrets / "rpc_token").read_text().strip()
    assert settings.host == "0.0.0.0"


@every_part
def test_a_part_gets_the_secrets_that_it_reads_and_no_others(part: Part) -> None:
    assert sorted(part.secrets) == sorted(value for name, value in part.own.items() if name.endswith("_FILE"))


@every_part
def test_a_part_runs_a_module_that_is_there(part: Part) -> None:
    assert importlib.util.find_spec(part.module) is not None


def test_the_tools_of_compose_have_every_setting_of_the_services() -> None:
    services = compose()["services"]
    whole: dict[str, str] = {}
    for name in ("billing", "quota", "notify"):
        whole |= services[name]["environment"]
    assert services["tools"]["environment"] == whole
    files = {value.removeprefix("/run/secrets/") for name, value in whole.items() if name.endswith("_FILE")}
    assert set(services["tools"]["secrets"]) == files


def test_compose_declares_each_secret_and_make_secrets_makes_each(secrets: Path) -> None:
    declared = compose()["secrets"]
    used = {secret for service in compose()["services"].values() for secret in service.get("secrets", [])}
    assert set(declared) == used == {path.name for path in secrets.iterdir()}


def test_secrets_that_are_there_stay_and_missing_ones_are_named(secrets: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "TOLLWAY_"))}
    make = str(DEPLOY / "make-secrets")
    subprocess.run([make, str(secrets)], check=True, capture_output=True, env=bare)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    refused = subprocess.run([make, str(tmp_path / "new")], capture_output=True, text=True, env=bare, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "make-secrets: set STRIPE_API_KEY STRIPE_WEBHOOK_SECRET TOLLWAY_SMTP_URL\n"
    assert not (tmp_path / "new").exists()


def test_ports_of_probes_and_services_are_those_that_the_parts_listen_on() -> None:
    ports = {name: SETTINGS[name].model_fields[f"{name}_port"].default for name in SETTINGS}
    for name in SETTINGS:
        check = compose()["services"][name]["healthcheck"]["test"]
        assert check[-1] == str(ports[name])
    for each in documents():
        if each["kind"] == "Deployment":
            name = each["metadata"]["name"]
            (container,) = each["spec"]["template"]["spec"]["containers"]
            assert container["ports"][0]["containerPort"] == ports[name]
            if name != "gateway":
                probes = {container[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "liveness", "readiness")}
                assert probes == {ports[name]}
                metrics = SETTINGS[name].model_fields[f"{name}_metrics_port"].default
                assert container["ports"][1]["containerPort"] == metrics


def test_the_images_lock_is_a_part_of_the_projects() -> None:
    def pins(path: Path) -> dict[str, str]:
        entries = re.findall(r"^(\S+==\S+[^\n]*(?:\n    [^\n]+)*)", path.read_text(), re.MULTILINE)
        return {entry.split("==")[0]: entry for entry in entries}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {
        re.split(r"[\[<>=;! ]", each)[0]
        for each in (*project["dependencies"], *project["optional-dependencies"]["services"])
    }
    whole, part = pins(ROOT / "requirements.lock"), pins(DEPLOY / "requirements.lock")
    assert needed <= {name.split("[")[0] for name in part}, "run make lock"
    for name, entry in part.items():
        hashes = set(re.findall(r"sha256:\w+", entry))
        assert hashes == set(re.findall(r"sha256:\w+", whole[name])), f"{name}: run make lock"


def test_the_image_is_made_of_files_that_are_there_and_not_ignored() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    sources = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.MULTILINE)
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == admitted
    assert all((ROOT / source).exists() for source in sources)
