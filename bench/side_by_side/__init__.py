# SPDX-License-Identifier: Apache-2.0
r"""All runs of a study's setting as one program that XLA compiles, for an accelerator without TensorFlow.

    python -m bench.side_by_side.export --gin_file=gin/studies/harmonization.gin --data_dir=data --folder=program
    python program/run.py program                    # where the accelerator is: JAX and NumPy alone
    python -m bench.side_by_side.take --gin_file=gin/studies/harmonization.gin --data_dir=data --folder=program \
        --out=runs/harmonization
    python -m tf_lwdgh.study --gin_file=gin/studies/harmonization.gin --data_dir=data --out=runs/harmonization

The first writes StableHLO, the training images and which of them make up each task of each step; the second trains
by it, so many runs at a time as the setting has methods and seeds; the third writes run folders as `train`
does, but for the optimizer's slots; the last finds them trained, judges them and makes the report.
"""
