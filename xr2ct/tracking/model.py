"""The best checkpoint in MLflow's model registry: a version a step, and the alias `best` where it is now."""

from __future__ import annotations

from typing import Any

from xr2ct.run import Run, step_name

KEY_TAG, STEP_TAG = "xr2ct.key", "xr2ct.step"
ALIAS = "best"


def register_best(client: Any, run: Run, run_id: str, key: str) -> int:
    """Make the best checkpoint a version of the run's model and point the alias at it; how many it added.

    The model is called as the run's folder, so that members of a sweep do not contend for one alias. A
    version is known again by its run and step: a second time adds nothing. Its files are those uploaded with
    the MLflow run, in a folder of their own for each step.
    """
    step = run.best_step()
    if step is None:
        return 0
    name = model_name(run)
    _ensure_model(client, name)
    versions = client.search_model_versions(f"name = '{_escaped(name)}'")
    ours = [v for v in versions if v.tags.get(KEY_TAG) == key and v.tags.get(STEP_TAG) == str(step)]
    added = 0
    if not ours:
        source = f"{client.get_run(run_id).info.artifact_uri}/{ALIAS}/{step_name(step)}"
        tags = {KEY_TAG: key, STEP_TAG: str(step)}
        ours = [client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)]
        added = 1
    if client.get_registered_model(name).aliases.get(ALIAS) != str(ours[0].version):
        client.set_registered_model_alias(name, ALIAS, str(ours[0].version))
    return added


def model_name(run: Run) -> str:
    """In the registry, which allows neither slash nor colon."""
    return run.path.absolute().name.replace(":", "_")


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _escaped(name: str) -> str:
    return name.replace("'", "''")
