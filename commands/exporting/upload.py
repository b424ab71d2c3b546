"""An exported model as a repository of the Hugging Face hub: one commit, so that nobody ever reads half of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.exported import FILES, REPOSITORY
from core.hub import hub_page, only_local
from core.inputs import reason

_LEFT_BY_HUB = ".gitattributes"
"""What a new repository holds."""


class Repository:
    """A repository of models to upload to; nothing is changed before `upload`.

    The token is taken from where the hub's own tools keep it (`HF_TOKEN`, `hf auth login`).

    Args:
        name: "owner/name".
        update: commit on top of what the repository holds.

    Raises:
        UserError: no such name is possible, the hub cannot be reached, there is no token, or the repository holds
            something and may not be updated.
    """

    def __init__(self, name: str, *, update: bool = False) -> None:
        from huggingface_hub import HfApi, get_token

        if not REPOSITORY.fullmatch(name):
            raise UserError(f"--repo {name!r}: expected owner/name, such as somebody/scenes")
        if only_local():
            raise UserError(
                f"--repo {name}: the hub cannot be reached; go online, or write a folder with --out FOLDER and upload "
                "it later"
            )
        with _uploading(name):
            token = get_token()
        if token is None:
            raise UserError(
                f"--repo {name}: there is no token for the hub; run 'hf auth login', or set HF_TOKEN to a token with "
                "write access"
            )
        self.name = name
        self._api = HfApi(token=token)
        self._held = self._files()
        if self._held - {_LEFT_BY_HUB} and not update:
            raise UserError(
                f"--repo {name}: the repository holds files already; give another name, or --update to commit on top "
                "of them"
            )

    def upload(self, folder: Path, *, public: bool) -> str:
        """Uploads a folder in one commit, and creates the repository where there is none.

        Files of an earlier model that the folder does not have are removed by the same commit.

        Args:
            folder: folder of files only.
            public: a repository that is created can be read by everybody; one that exists stays as it is.

        Returns:
            The address of the repository.

        Raises:
            UserError: the hub refuses it, or cannot be reached any more.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        added = sorted(path.name for path in folder.iterdir())
        gone = sorted(self._held.intersection(FILES).difference(added))
        with _uploading(self.name):
            self._api.create_repo(self.name, private=not public, exist_ok=True)
            self._api.create_commit(
                self.name,
                [
                    *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in added),
                    *(CommitOperationDelete(path_in_repo=name) for name in gone),
                ],
                commit_message="Upload of an exported model",
            )
        return hub_page(self.name)

    def _files(self) -> set[str]:
        """Names of the files that are there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with _uploading(self.name):
            try:
                return {file.rfilename for file in self._api.model_info(self.name).siblings or ()}
            except RepositoryNotFoundError:  # or one that the token may not see: creating it tells
                return set()


@contextlib.contextmanager
def _uploading(name: str) -> Iterator[None]:
    """Turns what the hub's library raises into one line.

    Raises:
        UserError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except UserError:
        raise
    except Exception as error:  # its library, and the clients of the network below it, raise dozens of types
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
        fix = (
            "a token with write access to this owner is needed: run 'hf auth login', or set HF_TOKEN"
            if refused
            else "try again, or write a folder with --out FOLDER"
        )
        raise UserError(f"--repo {name}: the hub did not take it; {fix} ({reason(error)})") from error
