"""The schema of run files."""

from phystrain.cli._app import app, say


@app.command
def schema() -> None:
    """Print the JSON schema of run files, for editors and for reading."""
    import json

    from phystrain.config import RunConfig

    say(json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False))
