"""A bundle: a folder that is verified as a whole before any tensor of it is used. Nothing in it is unpickled."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from HCCNetLib.bundles.description import BundleDescription, Member
from HCCNetLib.models import HCCNet
from HCCNetLib.models.published import all_finite
from HCCNetLib.records import Refusal

# Ten networks that were trained on a generated phantom; see Training/demo.yaml.
DEMONSTRATION_BUNDLE = Path(__file__).resolve().parents[1] / "demonstration"

DESCRIPTION_FILE, CARD_FILE = "bundle.json", "MODEL_CARD.md"
# What file managers leave behind on their own.
_HARMLESS = {".DS_Store", "Thumbs.db", "desktop.ini"}
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Args:
        path: the folder.
        description: what it says of itself.
        sha256: its identity: the SHA-256 over ``bundle.json``, which holds the hashes of the other files.
    """

    path: Path
    description: BundleDescription
    sha256: str

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Opens a bundle and verifies every file of it.

        Raises:
            Refusal: a file is missing, altered or foreign, or the description can't be used; names the file.
        """
        path = Path(path)
        if not path.is_dir():
            raise Refusal("missing_bundle", f"The bundle {path} does not exist or is not a folder. Check the path.")
        text = _read(path, DESCRIPTION_FILE)
        try:
            content = json.loads(text)
        except ValueError as error:
            raise Refusal("bad_bundle", "bundle.json is not JSON: damaged. Get the bundle again.") from error
        description = BundleDescription.from_dict(content)
        _refuse_foreign_files(path, description)
        _verify(_read(path, CARD_FILE), description.model_card_sha256, CARD_FILE)
        for member in description.members:
            _verify(_read(path, member.file), member.sha256, member.file)
        return cls(path, description, hashlib.sha256(text).hexdigest())

    def member(self, index: int) -> HCCNet:
        """Loads one network, in single precision and evaluation mode, on the CPU.

        Raises:
            Refusal: the file changed since it was verified, or does not hold this network's weights.
        """
        member = self.description.members[index]
        data = _read(self.path, member.file)
        _verify(data, member.sha256, member.file)
        try:
            tensors = safetensors.torch.load(data)
        except (SafetensorError, ValueError) as error:
            raise Refusal("bad_member", f"{member.file} is not a safetensors file. Get the bundle again.") from error
        if any(t.dtype not in _PRECISIONS for t in tensors.values()) or not all_finite(tensors):
            message = f"{member.file} holds weights that are not finite half- or single-precision numbers."
            raise Refusal("bad_member", message)
        with torch.device("meta"):  # drawing initial weights only to overwrite them takes most of the time
            model = HCCNet(self.description.model)
        weights = {name: tensor.float() for name, tensor in tensors.items()}
        try:
            model.load_state_dict(weights, strict=True, assign=True)
        except RuntimeError as error:
            message = f"{member.file} does not hold the weights of the network that bundle.json describes."
            raise Refusal("bad_member", message) from error
        return model.eval().requires_grad_(False)


def _read(folder: Path, name: str) -> bytes:
    file = folder / name
    try:
        if file.is_symlink() or not file.is_file():
            raise Refusal("missing_bundle_file", f"The bundle lacks {name}. Get the bundle again.")
        return file.read_bytes()
    except OSError as error:
        raise Refusal("no_permission", f"{name} of the bundle can't be read. Check its permissions.") from error


def _verify(data: bytes, sha256: str, name: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Refusal("altered_bundle", f"{name} of the bundle was altered: its SHA-256 differs. Get the bundle again.")


def _refuse_foreign_files(path: Path, description: BundleDescription) -> None:
    known = {DESCRIPTION_FILE, CARD_FILE, *(member.file for member in description.members)}
    found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_symlink() or not p.is_dir()}
    foreign = sorted(name for name in found - known if Path(name).name not in _HARMLESS)
    if foreign:
        message = (
            f"The bundle holds files that do not belong to it: {', '.join(foreign[:5])}. Remove them, or get it again."
        )
        raise Refusal("foreign_file", message)


def write_bundle(
    path: str | Path,
    description: BundleDescription,
    members: Sequence[tuple[Mapping[str, Tensor], int | None]],
    model_card: str,
    precision: torch.dtype = torch.float16,
) -> Bundle:
    """Writes a bundle aside and renames it into place; never over something that is there.

    Args:
        path: the new folder.
        description: its ``members`` and ``model_card_sha256`` are filled in here.
        members: state dict and seed of each network.
        model_card: the text of MODEL_CARD.md.
        precision: of the stored weights, half or single.

    Raises:
        Refusal: ``path`` exists, or can't be written.
    """
    path = Path(path)
    if path.exists():
        raise Refusal("output_exists", f"{path} exists already. Choose another folder or remove it first.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".bundle-", dir=path.parent))
    except OSError as error:
        raise Refusal("no_permission", f"No bundle can be written into {path.parent}: {error.strerror}.") from error
    try:
        (aside / "members").mkdir()
        listed = tuple(_write_member(aside, i, *member, precision) for i, member in enumerate(members))
        card = model_card.encode("utf-8")
        (aside / CARD_FILE).write_bytes(card)
        full = replace(description, members=listed, model_card_sha256=hashlib.sha256(card).hexdigest())
        text = json.dumps(full.to_dict(), indent=2, ensure_ascii=True) + "\n"
        (aside / DESCRIPTION_FILE).write_text(text, encoding="utf-8", newline="\n")
        aside.chmod(0o755)
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Bundle.open(path)


def _write_member(
    folder: Path, index: int, tensors: Mapping[str, Tensor], seed: int | None, precision: torch.dtype
) -> Member:
    file = f"members/{index:02d}.safetensors"
    data = safetensors.torch.save({k: v.detach().cpu().to(precision).contiguous() for k, v in sorted(tensors.items())})
    (folder / file).write_bytes(data)
    return Member(file, hashlib.sha256(data).hexdigest(), seed)


PLACEHOLDER_MEMBER = Member("members/00.safetensors", "0" * 64, None)
