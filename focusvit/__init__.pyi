"""What `import focusvit` offers, for type checkers: `__init__.py` loads each name when it is used."""

from .data.batch import Batch as Batch
from .data.samples import ShardDataset as ShardDataset
from .drop_in.patch import patch as patch
from .drop_in.patch import unpatch as unpatch
from .drop_in.readout import superpixel_means as superpixel_means
from .drop_in.readout import superpixel_readout as superpixel_readout
from .drop_in.readout import unpool as unpool
from .hub.model import Answer as Answer
from .hub.model import FocusViT as FocusViT
from .hub.model import load as load
from .model.config import FocusViTConfig as FocusViTConfig
from .predict.photo import superpixels as superpixels
from .runs.checkpoint import load_checkpoint as load_checkpoint
from .runs.checkpoint import load_model as load_model
from .train.config import TrainConfig as TrainConfig

__version__: str
__all__: list[str]
