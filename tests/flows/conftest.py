"""A saved model to change, an object store, a Prefect server."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def model_dir(saved_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model."""
    return shutil.copytree(saved_model, tmp_path / "model")


@pytest.fixture(scope="session")
def store() -> Iterator[Any]:
    """Return the file system of an S3-compatible server on loopback; the environment names it to all processes."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request else
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "anything")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()  # one that was made before reads no environment
        yield s3fs.S3FileSystem()
    server.stop()


@pytest.fixture
def bucket(store: Any) -> str:
    """Return the address of an empty bucket."""
    name = f"test-{uuid.uuid4().hex}"
    store.mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def put(store: Any) -> Callable[[str, bytes], None]:
    """Return what puts an object of these bytes at an address."""
    return lambda address, content: store.pipe_file(address, content)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """Have a Prefect server of this session's own, which is gone with it."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
