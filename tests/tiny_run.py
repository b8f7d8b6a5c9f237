"""``gancl`` with a quick preset of a few seconds, in this process or as a script of its own."""

from openmm_gancl.workflow import options
from openmm_gancl.workflow.options import Settings

TINY = Settings(
    n_windows=16,
    steps_per_window=200,
    frames_per_window=10,
    n_held_out=8,
    held_out_steps=320,
    generator_steps=8,
    latent=1,
    n_pilot=96,
    n_encoder_reverse=96,
    relax_steps=40,
    n_first=64,
    n_lifts=128,
    n_check_labels=3,
    n_check_frames=16,
    n_check_lifts=16,
)
PRESETS = {**options.PRESETS, "quick": TINY}

if __name__ == "__main__":
    options.PRESETS = PRESETS
    from openmm_gancl.cli import main

    main()
