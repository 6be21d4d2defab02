"""Weights decoded into scratch before the MVE kernels run, on QEMU's Cortex-M55."""

from __future__ import annotations

import numpy as np
from conv_cases import added, convolution
from mve_board import check, needs_qemu
from test_dsp_decoded import STORED, dense_case, stored

from edgecompress.lower.isa.dsp.decoded import DecodedGenerator
from edgecompress.lower.isa.mve.conv2d import ConvolutionGenerator
from edgecompress.lower.kernels.conv2d import Window

GENERATOR = DecodedGenerator(ConvolutionGenerator())


@needs_qemu
def test_every_codec_and_kind() -> None:
    """A window, one pixel, channels that fill no vector, sums in place, dense."""
    same = (1, 1, 1, 1)
    window = Window((1, 5, 4, 16), (3, 3), (1, 1), same)
    kinds = [
        convolution(window, 20), convolution(Window((1, 5, 4, 16), (1, 1)), 24),
        convolution(Window((1, 5, 4, 12), (1, 1)), 9), added(convolution(window, 8)),
        added(convolution(Window((1, 5, 4, 16), (1, 1)), 16)), dense_case(48, 37),
    ]  # fmt: skip
    cases, codecs = [], set()
    for case in kinds:
        for codec in STORED:
            made = stored(case, codec)
            offers = GENERATOR.implement(made.kernel, made.constants)
            codecs |= {offer.codec for offer in offers}
            if any(offer.codec == codec for offer in offers):
                cases.append((made.kernel, list(made.activations), list(made.constants)))
    assert codecs == set(STORED)
    assert len(cases) >= 4 * len(kinds) - 2  # padding may be one value too many for a table
    check([GENERATOR], cases)


def test_bytes_saved() -> None:
    case = convolution(Window((1, 6, 6, 32), (3, 3), (1, 1), (1, 1, 1, 1)), 64)
    (plain,) = ConvolutionGenerator().implement(case.kernel, case.constants)
    for codec, share in {"packed4": 1 / 2, "lut16": 1 / 2, "lut4": 1 / 4}.items():
        made = stored(case, codec)
        offers = GENERATOR.implement(made.kernel, made.constants)
        (offer,) = (offer for offer in offers if offer.codec == codec)
        saved = plain.constant_bytes - offer.constant_bytes
        assert abs(saved - np.size(case.constants[0]) * (1 - share)) < 100
        assert plain.cost.cycles < offer.cost.cycles < 1.6 * plain.cost.cycles
