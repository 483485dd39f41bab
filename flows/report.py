"""Stage: everything that a run has left on disk to report/index.html."""

from pathlib import Path

from prefect import flow

from evaluation.report import write_report
from flows.artifacts import show_report
from flows.limits import HOUR_S
from flows.places import Place, on_copies


@flow(name="report", flow_run_name="{run_dir}", timeout_seconds=HOUR_S)
@on_copies
def report(run_dir: Place, title: str, caveat: str = "") -> Path:
    """Write the run's report and link it in Prefect."""
    page = write_report(run_dir, title, caveat)
    show_report(page, title)
    return page
