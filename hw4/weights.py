"""Trained networks on disk: safetensors files, one for each run, beside its record. Nothing is ever unpickled."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hw4.errors import RecordError, first_line, first_problem
from hw4.experiments import build_convnet
from hw4.files import RECORDS, WEIGHTS
from hw4.models import ConvNet, TextCNN
from hw4.records import ConvNetRecord, Store, TextCNNRecord, made_by, was_made_by
from hw4.specs import ConvNetSpec, TextCNNSpec

if TYPE_CHECKING:
    from torch import nn


def packed(record: ConvNetRecord | TextCNNRecord, model: "nn.Module") -> bytes:
    """A trained network's parameters and buffers as a safetensors file, which also says which run they are of."""
    about = {"spec": record.spec.model_dump_json(), **made_by(record)}
    return save({name: each.detach().cpu().contiguous() for name, each in model.state_dict().items()}, about)


def load_model(folder: Path | str, key: str) -> ConvNet | TextCNN:
    """The network of a run as ``hw4 run --save-weights`` left it in this folder, in evaluation mode, on the CPU.

    ``key`` is the run's, as in :func:`hw4.load_results` and the records' names. The ConvNet takes images
    (batch, 1, 28, 28) standardised as :func:`hw4.data.images.load_images` gives them, the TextCNN vectors
    (batch, 1, 96). Raises RecordError where there are no such weights, where the file is damaged, and where code or
    data were others than the record's.
    """
    path = Path(folder) / WEIGHTS / f"{key}.safetensors"
    if not path.is_file():
        raise RecordError(_absent(Path(folder), key))
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        kind = ConvNetSpec if "_convnet-" in key else TextCNNSpec
        spec = kind.model_validate_json(about["spec"])
        model = build_convnet(spec) if isinstance(spec, ConvNetSpec) else TextCNN(spec.stride)
        model.load_state_dict(state)
    except (SafetensorError, ValidationError, KeyError, RuntimeError, OSError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else first_line(error)
        raise RecordError(f"{path} holds no network that this hw4 knows ({why}); {AGAIN}") from error
    kinds: type[ConvNetRecord] | type[TextCNNRecord] = ConvNetRecord if kind is ConvNetSpec else TextCNNRecord
    record = Store(Path(folder) / RECORDS, kinds).load(key)
    if spec.key != key or (record is not None and not was_made_by(record, about)):
        raise RecordError(f"{path} is not of the run that the record of {key} tells of; {AGAIN}")
    return model.eval()


AGAIN = "delete that file, and give the command that made it once more with --save-weights and the same --out"


def _absent(folder: Path, key: str) -> str:
    """The sentence on weights that are not there, with what is."""
    kept = sorted(path.stem for path in (folder / WEIGHTS).glob("*.safetensors"))
    record = folder / RECORDS / f"{key}.json"
    if record.is_file():
        return (
            f"the run {key} is in {folder}, but not its weights: it diverged, or was made without 'hw4 run "
            f"--save-weights', which makes it again"
        )
    known = f"there are {len(kept)}, such as {kept[0]}" if kept else "'hw4 run --save-weights' keeps them"
    return f"there are no weights of a run {key} in {folder}; {known}"
