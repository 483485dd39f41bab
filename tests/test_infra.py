"""What can be told of infra/ without a Docker daemon: who reaches what, where secrets come from, which versions run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).resolve().parent.parent / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (INFRA / "Dockerfile").read_text()
RAY: dict[str, Any] = yaml.safe_load((INFRA / "ray.yaml").read_text())
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("ovsegmentor:")}


def environments() -> list[tuple[str, str, str]]:
    return [
        (service, name, str(value))
        for service, settings in SERVICES.items()
        for name, value in settings.get("environment", {}).items()
    ]


def test_ports_are_published_on_loopback_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:4200:4200", "127.0.0.1:8265:8265", "127.0.0.1:9000:9000"]
    assert not [name for name, service in SERVICES.items() if "network_mode" in service or "privileged" in service]
    assert not re.search(r"^EXPOSE", DOCKERFILE, re.MULTILINE)


def test_secrets_come_from_the_environment_and_nothing_starts_without_them() -> None:
    secret = re.compile("PASSWORD|TOKEN|SECRET|AUTH_STRING|ACCESS_KEY|_USER$|CONNECTION_URL")
    found = [(name, value) for _, name, value in environments() if secret.search(name) and name != "POSTGRES_USER"]
    assert {name for name, _ in found} >= {"POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY"}
    assert all(re.search(r"\$\{[A-Z_]+:\?", value) for _, value in found), found


def test_no_file_holds_a_secret() -> None:
    literal = re.compile(r"(?i)(?:password|secret|token|prefect_auth)\w*['\"]?\s*[:=][ \t]*['\"]?([\w+/]{6,})")
    paths = [path for path in INFRA.iterdir() if path.name != ".env"]  # which is this machine's own; git ignores it
    assert len(paths) == 7
    assert {path.name: found for path in paths if (found := literal.findall(path.read_text()))} == {}
    assert literal.findall('POSTGRES_PASSWORD: "hunter22"') == ["hunter22"]
    assert "infra/.env" in (INFRA.parent / ".gitignore").read_text().splitlines()
    assert "infra/.env" in (INFRA.parent / ".dockerignore").read_text().splitlines()


def test_prefect_asks_for_a_password_and_its_clients_have_it() -> None:
    assert SERVICES["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"] == "${PREFECT_AUTH:?}"
    clients = {service for service, name, _ in environments() if name == "PREFECT_API_AUTH_STRING"}
    assert {"deploy", "worker"} <= clients


def test_every_ray_node_asks_for_the_token() -> None:
    nodes = {name: service for name, service in SERVICES.items() if "ray start" in " ".join(service.get("command", []))}
    nodes |= {name: service for name, service in SERVICES.items() if service.get("command", [""])[0] == "ray"}
    assert set(nodes) == {"worker", "ray-head", "ray-worker", "ray-worker-gpu"}
    for service in nodes.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_TOKEN:?")
    assert "--env=RAY_AUTH_MODE=token" in RAY["docker"]["run_options"]
    assert any(path.endswith("/.ray/auth_token") for path in RAY["file_mounts"])


def test_all_nodes_see_the_same_disk_where_working_copies_lie() -> None:
    (cache,) = re.findall(r"OVSEG_CACHE=(\S+)", DOCKERFILE)
    assert cache.startswith("/data/")
    for name in ("worker", "ray-head", "ray-worker", "ray-worker-gpu"):
        assert SERVICES[name]["volumes"] == ["data:/data"]
    assert "--volume=/shared:/data" in RAY["docker"]["run_options"]


def test_python_prefect_and_ray_are_those_of_the_lock() -> None:
    others = {service["image"].split(":")[0] for name, service in SERVICES.items() if name not in OURS}
    assert others == {"postgres", "minio/minio"}, "Prefect and Ray come from our image alone"
    targets = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert {service["build"]["target"] for service in OURS.values()} == set(targets) == {"cpu", "cuda"}
    assert all(service["image"] == f"ovsegmentor:{service['build']['target']}" for service in OURS.values())
    assert RAY["docker"]["image"] == "ovsegmentor:cuda"
    assert re.search(r"uv pip install[^&]*--no-deps --require-hashes \\\n\s+-r infra/requirements\.lock", DOCKERFILE)
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE)
    (locked,) = re.findall(r"--python-version (\S+)", (INFRA.parent / "Makefile").read_text())
    requires = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python == locked
    assert requires.startswith(f">={locked}")


def test_services_wait_for_services_that_there_are() -> None:
    awaited = {name for service in SERVICES.values() for name in service.get("depends_on", [])}
    assert awaited <= set(SERVICES)
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == set(COMPOSE["volumes"])


def test_ray_accepts_the_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(RAY)
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    (head,) = [command for command in config["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
