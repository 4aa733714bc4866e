"""Schemas of the files that are written and read."""

from phystrain.cli._app import app, say


@app.command
def schema(*, results: bool = False) -> None:
    """Print the JSON schema of run files, for editors and for reading.

    Parameters
    ----------
    results
        That of results.json instead, which train and audit write.
    """
    import json

    from phystrain.config import RunConfig
    from phystrain.verdict.results_file import ResultsFile

    content = (ResultsFile if results else RunConfig).model_json_schema()
    say(json.dumps(content, indent=2, ensure_ascii=False))
