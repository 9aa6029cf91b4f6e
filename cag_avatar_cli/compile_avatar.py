"""``cag-avatar compile``."""

from __future__ import annotations

from rich.progress import Progress

from cag_avatar.avatar.distillation import DEFAULT_RANK, fit_offset_basis
from cag_avatar.avatar.fidelity import measure_fidelity
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.errors import InputError
from cag_avatar.native.library import NativeUnavailableError
from cag_avatar_cli.options import OptionalOutputPath, PathArgument


def command(
    avatar: PathArgument,
    output: OptionalOutputPath = None,
    rank: int = DEFAULT_RANK,
    samples: int | None = None,
    check: int = 200,
    seed: int = 0,
) -> None:
    """Make an avatar fast to drive: distil its offset network to a basis, kept in its file.

    Training does that by itself; this is for avatars from before, or for another rank. Prints how
    far the pictures are from those of the network itself.

    Args:
        avatar: *.cag file.
        output: *.cag file to write; by default the avatar itself.
        rank: components of the basis: more are closer to the network, and slower.
        samples: codes and poses that the network is run on; by default four times the rank.
        check: codes and poses, other ones, on which the pictures are compared.
        seed: of all of them.
    """
    if check < 1:
        raise InputError(f"check: {check} must be at least 1")
    made = load_avatar(avatar)
    with Progress() as progress:
        task = progress.add_task("offsets")
        made.live_basis = fit_offset_basis(
            made, rank, samples, seed,
            lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    save_avatar(output or avatar, made)
    print(f"avatar: {output or avatar} (live basis of rank {made.live_basis.rank})")
    try:
        found = measure_fidelity(made, check, seed + 1)
    except NativeUnavailableError as error:
        print(f"not compared with the network: {error}")
        return
    print(
        f"against the network, {check} other codes and poses at 512 px: PSNR "
        f"{found.whole.mean():.1f} dB, least {found.whole.min():.1f}; where the avatar is "
        f"{found.head.mean():.1f}, least {found.head.min():.1f}"
    )
