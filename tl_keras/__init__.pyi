from tl_keras import errors as errors
from tl_keras import strategies as strategies
from tl_keras import weights as weights
from tl_keras.config import RunConfig as RunConfig
from tl_keras.errors import UserError as UserError
from tl_keras.interface.comparison import Comparison as Comparison
from tl_keras.interface.comparison import compare as compare
from tl_keras.interface.evaluation import Evaluation as Evaluation
from tl_keras.interface.fitting import build_model as build_model
from tl_keras.interface.fitting import dry_run as dry_run
from tl_keras.interface.fitting import fit as fit
from tl_keras.interface.fitting import lr_find as lr_find
from tl_keras.interface.image_data import ImageData as ImageData
from tl_keras.interface.run import Run as Run
from tl_keras.interface.run import load_run as load_run
from tl_keras.interface.tables import list_available as list_available
from tl_keras.interface.tables import write_report as write_report
from tl_keras.results.predicted import Predictions as Predictions

PUBLIC: dict[str, str]
NAMESPACES: tuple[str, ...]
__all__: list[str]

def __dir__() -> list[str]: ...
