"""Let mmpretrain's ``list_models`` and ``get_model`` find the classifiers that ship with mmfreq."""
from functools import cache
from pathlib import Path

from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load

_MIM = Path(__file__).parents[1] / '.mim'


def provide_models() -> None:
    """Add the shipped configs to mmpretrain's hub when it first reads its own."""
    stock = ModelHub._register_mmpretrain_models  # private

    def register() -> None:
        stock()
        _register()

    ModelHub._register_mmpretrain_models = staticmethod(register)


@cache
def _register() -> None:
    index = load(str(_MIM / 'model-index.yml'))
    index.build_models_with_collections()
    for model in index.models:
        if model.name.endswith('_in1k') and '::' not in model.config:
            model.config = str(_MIM / model.config)
            ModelHub._models_dict[model.name.lower()] = model
