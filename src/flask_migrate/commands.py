"""The commands as functions; each needs an application context.

They raise Alembic's exceptions, return what Alembic returns and leave logging alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .invocation import Names, StrPath, group_options
from .state import find_state

if TYPE_CHECKING:
    from alembic.script import Script

    from .config import Config


def list_templates() -> None:
    """List the repository templates."""
    from .config import Config

    config = Config()
    config.print_stdout("Available templates:\n")
    for folder in sorted(Path(config.get_template_directory()).iterdir()):
        if (folder / "README").is_file():
            synopsis = (folder / "README").read_text(encoding="utf-8").splitlines()[0]
            config.print_stdout("%s - %s", folder.name, synopsis)


def init(
    directory: StrPath | None = None,
    multidb: bool = False,
    template: StrPath | None = None,
    package: bool = False,
    pyproject: bool = False,
) -> None:
    """Create a migration repository.

    Args:
        directory: where to; the extension's own by default.
        multidb: for several databases.
        template: name of a template, or the path of a folder that holds one.
        package: make the repository and its versions Python packages.
        pyproject: write the configuration to pyproject.toml in place of alembic.ini.

    Raises:
        CommandError: the directory is not empty, or there is no such template.
    """
    from .repository import create_repository

    if isinstance(template, os.PathLike):
        template = Path(template).absolute()
    name = str(template or ("flask-multidb" if multidb else "flask"))
    target = str(directory or group_options().get("directory") or find_state().directory)
    create_repository(target, name, package=package, pyproject=pyproject)


def revision(
    directory: StrPath | None = None,
    message: str | None = None,
    autogenerate: bool = False,
    sql: bool = False,
    head: str = "head",
    splice: bool = False,
    branch_label: str | None = None,
    version_path: StrPath | None = None,
    rev_id: str | None = None,
    depends_on: Names | None = None,
    x_arg: Names | None = None,
) -> Script | list[Script | None] | None:
    """Create a revision file.

    Args:
        directory: the migration repository.
        message: what the revision does, in a few words.
        autogenerate: fill it by comparing the models with the database.
        sql: write the script to standard output.
        head: the revision, or branch@head, to build upon.
        splice: allow a `head` that is not a head.
        branch_label: label of the branch that begins here.
        version_path: folder of the file, where the repository has several.
        rev_id: identifier to use in place of a generated one.
        depends_on: revisions that must run before this one.
        x_arg: arguments for `env.py`.

    Returns:
        The new revision, or a list of several.

    Raises:
        CommandError: Alembic refuses; for example, the database is not at head.
    """
    if autogenerate and sql:
        from alembic.util import CommandError

        raise CommandError("--sql cannot be used here: comparing needs a database.")
    _require_text(message=message, branch_label=branch_label, rev_id=rev_id)
    config = _config(directory, x_arg, autogenerate=autogenerate)
    _make_versions(config)
    return _run(  # type: ignore[no-any-return]
        "revision",
        config,
        message,
        autogenerate=autogenerate,
        sql=sql,
        head=head,
        splice=splice,
        branch_label=branch_label,
        version_path=version_path,
        rev_id=rev_id,
        **_used(depends_on=_several(depends_on)),
    )


def migrate(
    directory: StrPath | None = None,
    message: str | None = None,
    sql: bool = False,
    head: str = "head",
    splice: bool = False,
    branch_label: str | None = None,
    version_path: StrPath | None = None,
    rev_id: str | None = None,
    x_arg: Names | None = None,
    depends_on: Names | None = None,
) -> Script | list[Script | None] | None:
    """Create a revision by comparing the models with the database.

    The same as `revision(autogenerate=True)`; see there.
    """
    return revision(
        directory,
        message,
        autogenerate=True,
        sql=sql,
        head=head,
        splice=splice,
        branch_label=branch_label,
        version_path=version_path,
        rev_id=rev_id,
        depends_on=depends_on,
        x_arg=x_arg,
    )


def edit(directory: StrPath | None = None, revision: str = "current") -> None:
    """Open a revision file in $EDITOR."""
    _run("edit", _config(directory), revision)


def merge(
    directory: StrPath | None = None,
    revisions: Names = "",
    message: str | None = None,
    branch_label: str | None = None,
    rev_id: str | None = None,
    splice: bool = False,
) -> Script | None:
    """Join revisions with a new revision file that has all of them as parents.

    Raises:
        CommandError: no revisions were given, or Alembic refuses.
    """
    if not revisions:
        from alembic.util import CommandError

        raise CommandError("Name the revisions to merge, or 'heads' for all heads.")
    _require_text(message=message, branch_label=branch_label, rev_id=rev_id)
    return _run(  # type: ignore[no-any-return]
        "merge",
        _config(directory),
        revisions,
        message=message,
        branch_label=branch_label,
        rev_id=rev_id,
        **_used(splice=splice),
    )


def upgrade(
    directory: StrPath | None = None,
    revision: str = "head",
    sql: bool = False,
    tag: str | None = None,
    x_arg: Names | None = None,
    bind: Names | None = None,
) -> None:
    """Upgrade to a later revision.

    Args:
        directory: the migration repository.
        revision: the target; also `heads`, `branch@head`, `+1`, a partial identifier.
        sql: print the statements in place of running them.
        tag: any text, for `env.py`.
        x_arg: arguments for `env.py`.
        bind: the databases to touch; all by default.

    Raises:
        CommandError: unknown revision, several heads, a database ahead of the code.
    """
    _run("upgrade", _config(directory, x_arg, bind), revision, sql=sql, tag=tag)


def downgrade(
    directory: StrPath | None = None,
    revision: str = "-1",
    sql: bool = False,
    tag: str | None = None,
    x_arg: Names | None = None,
    bind: Names | None = None,
) -> None:
    """Return to an earlier revision; the arguments are those of `upgrade()`."""
    if sql and revision == "-1":
        revision = "head:-1"
    _run("downgrade", _config(directory, x_arg, bind), revision, sql=sql, tag=tag)


def show(directory: StrPath | None = None, revision: str = "head") -> None:
    """Show a revision."""
    _run("show", _config(directory), revision)


def history(
    directory: StrPath | None = None,
    rev_range: str | None = None,
    verbose: bool = False,
    indicate_current: bool = False,
) -> None:
    """List revisions, newest first."""
    _run(
        "history", _config(directory), rev_range, verbose=verbose, indicate_current=indicate_current
    )


def heads(
    directory: StrPath | None = None, verbose: bool = False, resolve_dependencies: bool = False
) -> None:
    """List the heads of the repository."""
    _run("heads", _config(directory), verbose=verbose, resolve_dependencies=resolve_dependencies)


def branches(directory: StrPath | None = None, verbose: bool = False) -> None:
    """List the revisions from which branches begin."""
    _run("branches", _config(directory), verbose=verbose)


def current(
    directory: StrPath | None = None,
    verbose: bool = False,
    check_heads: bool = False,
    bind: Names | None = None,
) -> None:
    """Show the revision that each database is at.

    Raises:
        DatabaseNotAtHead: `check_heads` was given, and a database is elsewhere.
    """
    config = _config(directory, bind=bind)
    _run("current", config, verbose=verbose, **_used(check_heads=check_heads))


def stamp(
    directory: StrPath | None = None,
    revision: Names = "head",
    sql: bool = False,
    tag: str | None = None,
    purge: bool = False,
    bind: Names | None = None,
) -> None:
    """Record revisions as the current ones, without running anything."""
    _run("stamp", _config(directory, bind=bind), revision, sql=sql, tag=tag, purge=purge)


def check(directory: StrPath | None = None, bind: Names | None = None) -> None:
    """Check whether `migrate()` would find anything to do.

    Raises:
        AutogenerateDiffsDetected: it would; the differences are in `diffs`.
    """
    _run("check", _config(directory, bind=bind))


def ensure_version(
    directory: StrPath | None = None, sql: bool = False, bind: Names | None = None
) -> None:
    """Create the table that holds the revision, where there is none."""
    _run("ensure_version", _config(directory, bind=bind), sql=sql)


def _used(**options: Any) -> dict[str, Any]:
    """Keep of the options that Flask-Migrate 4.1 lacks, and some Alembic too, those in use."""
    return {name: value for name, value in options.items() if value}


def _several(names: Names | None) -> list[str]:
    return [names] if isinstance(names, str) else [*(names or ())]


def _config(
    directory: StrPath | None,
    x_arg: Names | None = None,
    bind: Names | None = None,
    *,
    autogenerate: bool = False,
) -> Config:
    """Make the configuration of one command, with what `env.py` may look at in `cmd_opts`."""
    options: dict[str, Any] = {}
    if autogenerate:
        options["autogenerate"] = True
    if bind:
        options["bind"] = _several(bind)
    return find_state(directory).migrate.get_config(directory, x_arg=x_arg, opts=options)


def _require_text(**options: str | None) -> None:
    """Refuse what cannot be written to a file: the command line takes any bytes.

    Raises:
        CommandError: an option is not UTF-8.
    """
    for name, value in options.items():
        if isinstance(value, str) and value.encode(errors="replace").decode() != value:
            from alembic.util import CommandError

            raise CommandError(f"--{name.replace('_', '-')} is not UTF-8 text")


def _make_versions(config: Config) -> None:
    """Make the folder of the revisions: git keeps no empty one, and not every Alembic makes it."""
    listed = getattr(config, "get_version_locations_list", lambda: None)()
    folder = config.get_main_option("script_location")
    if listed or config.get_main_option("version_locations") or not folder:
        return
    if Path(folder).is_dir():
        Path(folder, "versions").mkdir(exist_ok=True)


def _run(name: str, config: Config, *args: Any, **options: Any) -> Any:
    from .runner import run_command

    return run_command(name, config, *args, **options)
