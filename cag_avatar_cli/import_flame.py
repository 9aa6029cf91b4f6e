"""``cag-avatar import-flame``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar.errors import InputError
from cag_avatar.head_models import head_model_folders
from cag_avatar.head_models.flame_file import FlameExtras, load_flame
from cag_avatar.head_models.library import is_bundled
from cag_avatar.head_models.storage import save_head_model
from cag_avatar_cli.options import OptionalOutputPath, PathArgument


def command(
    file: PathArgument,
    output: OptionalOutputPath = None,
    left_eyelid: Path | None = None,
    right_eyelid: Path | None = None,
    template: Path | None = None,
    masks: Path | None = None,
) -> None:
    """Make a head model file of a FLAME model (2020, 2023, 2023 Open) that you have.

    Args:
        file: FLAME's .pkl, or an .npz of the same entries, from https://flame.is.tue.mpg.de.
        output: file to write (*.safetensors); its name is the head model's. By default FILE's name
            in the folder that head models are looked for in.
        left_eyelid: metrical-tracker's l_eyelid.npy, so that eyes can close.
        right_eyelid: metrical-tracker's r_eyelid.npy.
        template: head_template.obj, for FLAME's texture coordinates; else an atlas is made.
        masks: FLAME_masks.pkl, for exact regions; else lips, ears and scalp are guessed.
    """
    folders = head_model_folders()
    target = output or folders[0] / f"{file.stem.lower()}.safetensors"
    if target.suffix != ".safetensors" or is_bundled(target.stem):
        raise InputError(f"{target}: name it NAME.safetensors, with a name that is not taken")
    model = load_flame(file, target.stem, FlameExtras(left_eyelid, right_eyelid, template, masks))
    save_head_model(target, model)
    print(
        f"head model: {target} ({len(model.vertices)} vertices, {model.num_identity} shape and "
        f"{model.num_expression} code coefficients; no teeth)\n"
        f"next:       cag-avatar tie-landmarks --head-model {target}"
    )
    if target.parent.resolve() not in [folder.resolve() for folder in folders]:
        print(
            "note:       datasets and avatars know it by its name: set "
            f"CAG_AVATAR_HEAD_MODELS={target.parent.resolve()} to work with them"
        )
