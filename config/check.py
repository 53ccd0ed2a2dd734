"""Check: what is wrong with a configuration before anything is started from it."""

from collections.abc import Iterator

from config.settings import EdgeModelSettings, Settings


def missing_files(settings: Settings) -> list[str]:
    """Return a line for each model or generator file that the configuration names in vain."""
    return [line for model in settings.edge_models for line in _missing(model)]


def _missing(model: EdgeModelSettings) -> Iterator[str]:
    where = f"edge_models {model.name}"
    if not (model.model / "config.json").is_file():
        yield f"{where}: model: no config.json in {model.model}"
    elif not model.template_path.is_file():
        yield f"{where}: chat_template: no file {model.template_path}"
    if model.generator is not None and not (model.generator / "config.json").is_file():
        yield f"{where}: generator: no config.json in {model.generator}"
