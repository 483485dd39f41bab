"""Stage: everything that a run has left on disk to report/index.html."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_link_artifact

from evaluation.report import write_report


@flow(name="report")
def report(run_dir: Path, title: str, caveat: str = "") -> Path:
    """Write the run's report and link it in Prefect."""
    page = write_report(run_dir, title, caveat)
    create_link_artifact(page.resolve().as_uri(), link_text=f"report of {title}", key="report")
    return page
