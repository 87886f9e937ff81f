"""The codecs: golden streams worked out by hand, bit-exact round trips, sizes against entropy, malformed streams."""

import itertools
import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.structure import from_blocks
from sparsepack.errors import FileFormatError
from sparsepack.exporters.codecs import CODECS, POSITIONS, VALUES, Layout, bits
from sparsepack.exporters.codecs.blocks import digits_per_word
from sparsepack.exporters.codecs.deflate import deflate, huffman, inflate, inflate_prefix
from sparsepack.exporters.packed_parts import encode_positions, encode_values
from sparsepack.files import Array, numpy_dtype

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool"]


def layout_of(mask: Array, structure: str = "element", output_axis: int = 0) -> Layout:
    return Layout(mask.shape, structure, output_axis, int(np.count_nonzero(mask)))


def stored(data: bytes) -> bytes:
    """A raw deflate stream with one stored block: bytes that can be written down by hand."""
    return b"\x01" + len(data).to_bytes(2, "little") + (len(data) ^ 0xFFFF).to_bytes(2, "little") + data


def test_ids_are_the_ones_in_released_files() -> None:
    assert set(CODECS) == {
        "all",
        "none",
        "seeded-mask",
        "channels",
        "n-of-m",
        "blocks",
        "gaps",
        "bitmap",
        "bitmap-deflate",
        "raw",
        "floats",
        "magnitudes",
        "deflate",
    }
    assert all(codec.id == name for name, codec in CODECS.items())


# Hand-made streams: 600 weights, kept at 0, 3, 300 and 301; gaps 0, 2, 296, 0.
GOLDEN = np.zeros(600, np.bool_)
GOLDEN[[0, 3, 300, 301]] = True


@pytest.mark.parametrize(
    ("shift", "stream"),
    [
        # 296 = 255 + 41: one escape
        (0, b"\x00" + stored(bytes([0, 2, 255, 41, 0]))),
        # quotients 0 0 37 0, remainders 0 2 0 0 of three bits: 0b000_000_010_000 from the low end
        (3, b"\x03" + bytes([0b00010000, 0]) + stored(bytes([0, 0, 37, 0]))),
    ],
)
def test_gap_streams_made_by_hand_decode(shift: int, stream: bytes) -> None:
    assert stream[0] == shift
    np.testing.assert_array_equal(POSITIONS["gaps"].decode(stream, layout_of(GOLDEN)), GOLDEN)


def test_an_inverted_gap_stream_lists_what_is_pruned() -> None:
    mask = np.ones(8, np.bool_)
    mask[[1, 6]] = False
    stream = b"\x80" + stored(bytes([1, 4]))
    np.testing.assert_array_equal(POSITIONS["gaps"].decode(stream, layout_of(mask)), mask)


def test_the_2_4_patterns_are_numbered_combinatorially() -> None:
    # Rank of places i < j is C(i, 1) + C(j, 2): the six patterns in this order.
    places = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    blocks = np.zeros((6, 4), np.bool_)
    for row, pair in enumerate(places):
        blocks[row, list(pair)] = True
    mask = blocks.reshape(1, 24)
    # Six digits in base 6, first digit lowest; 6**6 - 1 needs 16 bits.
    number = sum(digit * 6**digit for digit in range(6))
    stream = POSITIONS["n-of-m"].encode(mask, layout_of(mask, "2:4"))
    assert stream == number.to_bytes(2, "little")


def test_17_blocks_of_2_4_share_a_word_of_44_bits() -> None:
    assert digits_per_word(6) == (17, 44)
    assert 44 / 17 / math.log2(6) < 1.0013


@given(st.integers(2, 10**6))
def test_words_hold_their_digits_and_waste_little(base: int) -> None:
    count, width = digits_per_word(base)
    assert base**count <= 2**width <= 2**63
    # Brute force over every other split of a word.
    for other in range(1, 64):
        needed = (base**other - 1).bit_length()
        assert needed > 63 or width * other <= needed * count


def test_float_streams_made_by_hand_decode() -> None:
    # 1.0 (exponent 127), -2.0 (128), 1.5 (127), 1.0: distances 1 0 1 1 from 128, three a byte in base 6.
    values = np.array([1.0, -2.0, 1.5, 1.0], np.float32)
    exponents = bytes([1 + 0 * 6 + 1 * 36, 1])
    sign_and_mantissa = bytes([0, 0x80, 0x40, 0])
    stream = b"\x03\x00\x80\x00" + exponents + sign_and_mantissa + bytes(8)
    np.testing.assert_array_equal(VALUES["floats"].decode(stream, 4, np.dtype(np.float32)), values)
    # The same with the highest plane sorted by distance (stable): -2.0 first.
    stream = b"\x83\x00\x80\x00" + exponents + bytes([0x80, 0, 0x40, 0]) + bytes(8)
    np.testing.assert_array_equal(VALUES["floats"].decode(stream, 4, np.dtype(np.float32)), values)
    # Eight a byte in base 2, the last symbol an escape: distances 1 0 1 1 are three escapes of zero more.
    stream = b"\x08\x00\x80\x00" + bytes([0b1101, 0, 0, 0]) + sign_and_mantissa + bytes(8)
    np.testing.assert_array_equal(VALUES["floats"].decode(stream, 4, np.dtype(np.float32)), values)


def test_magnitude_streams_made_by_hand_decode() -> None:
    # Above 1.0 = 0x3f800000 the magnitudes of 1.0, -2.0, 1.5 and 1.0 lie 0, 2, 1 and 0 times 2**22.
    values = np.array([1.0, -2.0, 1.5, 1.0], np.float32)
    base = b"\x00\x00\x80\x3f"
    # Tails of 23 bits: two planes, and of the seven highest bits the last is the sign: bit 13 of 28.
    signs = bytes([0, 0x20, 0, 0])
    stream = b"\x16" + base + stored(bytes([0, 2, 1, 0])) + bytes(8) + signs
    np.testing.assert_array_equal(VALUES["magnitudes"].decode(stream, 4, np.dtype(np.float32)), values)
    # Counted from less, 3 * 2**22 lower, and in steps of 2**14, of which 512 = 255 + 257.
    base = b"\x00\x00\xc0\x3e"
    escapes = b"".join((steps - 255).to_bytes(4, "little") for steps in (768, 1280, 1024, 768))
    stream = b"\x0e" + base + stored(b"\xff" * 4) + escapes + bytes(4) + signs
    np.testing.assert_array_equal(VALUES["magnitudes"].decode(stream, 4, np.dtype(np.float32)), values)
    # bfloat16 in one step: a nibble of tail, two a byte.
    stream = b"\x03\x80\x3f" + stored(bytes([0, 16, 8, 0])) + bytes([0x80, 0])
    decoded = VALUES["magnitudes"].decode(stream, 4, numpy_dtype("bfloat16"))
    np.testing.assert_array_equal(decoded.astype(np.float32), values)


shapes = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@st.composite
def masks(draw: st.DrawFn) -> Array:
    shape = draw(shapes)
    count = math.prod(shape)
    density = draw(st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.8, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (rng.random(count) < density).reshape(shape)


@given(masks(), st.data())
def test_every_position_codec_that_applies_round_trips(mask: Array, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, max(0, mask.ndim - 1)))
    layout = layout_of(mask, data.draw(st.sampled_from(["element", "channel", "2:4", "1:2"])), axis)
    sizes = []
    for name, codec in POSITIONS.items():
        stream = codec.encode(mask, layout)
        if stream is not None:
            decoded = codec.decode(stream, layout)
            assert decoded.dtype == np.bool_
            np.testing.assert_array_equal(decoded, mask, name)
            sizes.append(len(stream))
    assert len(encode_positions(mask, layout)[1]) == min(sizes)


@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (3, 7), (1, 16), (15, 16), (7, 40), (998, 999)]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_n_of_m_masks_round_trip(units: int, blocks: int, nm: tuple[int, int], transposed: bool, seed: int) -> None:
    n, m = nm
    rng = np.random.default_rng(seed)
    mask_blocks = np.zeros((units * blocks, m), np.bool_)
    for row in mask_blocks:
        row[rng.choice(m, n, replace=False)] = True
    shape = (blocks * m, units) if transposed else (units, blocks * m)
    mask = from_blocks(mask_blocks, shape, int(transposed))
    layout = layout_of(mask, f"{n}:{m}", int(transposed))
    stream = POSITIONS["n-of-m"].encode(mask, layout)
    assert stream is not None
    np.testing.assert_array_equal(POSITIONS["n-of-m"].decode(stream, layout), mask)
    count, width = digits_per_word(math.comb(m, n))
    words, rest = divmod(units * blocks, count)
    assert len(stream) == math.ceil(words * width / 8) + math.ceil((math.comb(m, n) ** rest - 1).bit_length() / 8)


@st.composite
def value_rows(draw: st.DrawFn) -> Array:
    dtype = numpy_dtype(draw(st.sampled_from(DTYPES)))
    count = draw(st.integers(0, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["bits", "normal", "few", "constant"]))
    if dtype == np.bool_:
        return rng.random(count) < 0.5
    if kind == "bits":
        # Every pattern: NaN payloads, infinities, subnormals, -0.0.
        return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype)
    numbers = {
        "normal": rng.normal(size=count),
        "few": rng.choice(np.array([0.0, -0.0, 1.0, 3.0]), count),
        "constant": np.full(count, 7.0),
    }[kind]
    return numbers.astype(dtype)


@given(value_rows())
def test_every_value_codec_that_applies_round_trips_bit_for_bit(values: Array) -> None:
    sizes = []
    for codec in VALUES.values():
        stream = codec.encode(values)
        if stream is not None:
            decoded = codec.decode(stream, values.size, values.dtype)
            assert decoded.dtype == values.dtype
            assert decoded.shape == values.shape
            assert decoded.tobytes() == values.tobytes()
            sizes.append(len(stream))
    assert len(encode_values(values)[1]) == min(sizes)
    assert encode_values(values) == encode_values(values.copy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rare_exponents_go_through_escapes(dtype: str) -> None:
    values = np.full(10_000, 1.5).astype(numpy_dtype(dtype))
    values[::2] *= np.float32(-0.5)
    values[[3, 500, 9999]] = np.array([1e-4, 0.0, 2e-8]).astype(values.dtype)
    stream = VALUES["floats"].encode(values)
    assert stream is not None
    assert stream[0] & 15 > 1
    assert VALUES["floats"].decode(stream, values.size, values.dtype).tobytes() == values.tobytes()


@pytest.mark.parametrize("density", [0.0005, 0.002, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.95])
def test_positions_land_near_their_entropy(density: float) -> None:
    mask = np.random.default_rng(1).random(200_000) < density
    p = mask.mean()
    bound = mask.size * -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
    size = len(encode_positions(mask, layout_of(mask))[1])
    # A code without memory cannot do better by more than luck; zlib's code tables cost up to 60 bytes.
    assert 0.99 * bound < size < 1.035 * bound + 60


@pytest.mark.parametrize(("density", "bits_a_value"), [(0.5, 26.0), (0.1, 25.0), (0.05, 24.0)])
def test_survivors_of_magnitude_pruning_take_less_than_their_order_0_bound(density: float, bits_a_value: float) -> None:
    weights = np.random.default_rng(2).normal(size=1_000_000).astype(np.float32)
    kept = weights[np.abs(weights) >= np.quantile(np.abs(weights), 1 - density)]
    words = kept.view(np.uint32) >> 23
    counts = np.bincount(words)
    counts = counts[counts > 0]
    order_0 = float((counts * np.log2(kept.size / counts)).sum()) + 23 * kept.size
    name, stream = encode_values(kept)
    assert name == "magnitudes"
    assert 8 * len(stream) < min(0.996 * order_0, bits_a_value * kept.size)
    # What a survivor tells: its density times its spacing. Whole bits cost 0.03 of one, a table 150 bytes.
    density_of = np.exp(-0.5 * kept.astype(np.float64) ** 2) / math.sqrt(2 * math.pi) / density
    told = -float(np.log2(density_of * np.spacing(np.abs(kept))).sum())
    assert 0.999 * told < 8 * len(stream) < told + 0.06 * kept.size + 1200


def test_constants_cost_next_to_nothing() -> None:
    assert len(encode_values(np.ones(4096, np.float32))[1]) < 40
    assert len(encode_values(np.zeros(1, np.int64))[1]) < 8


@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 8, 9, 17, 44, 63, 64])
def test_bit_packing_is_exact(width: int) -> None:
    rng = np.random.default_rng(width)
    numbers = np.array([int.from_bytes(rng.bytes(8), "little") >> (64 - width) if width else 0 for _ in range(13)])
    packed = bits.pack(numbers.astype(np.uint64), width).tobytes()
    # By hand: the numbers as one long integer, lowest first.
    whole = sum(int(number) << (width * place) for place, number in enumerate(numbers))
    assert packed == whole.to_bytes(math.ceil(13 * width / 8), "little")
    np.testing.assert_array_equal(bits.unpack(packed, 13, width), numbers.astype(np.uint64))


def test_inflating_stops_at_the_limit() -> None:
    bomb = deflate(bytes(50_000_000))
    with pytest.raises(FileFormatError, match="more than the 1000 bytes"):
        inflate(bomb, 1000)
    assert inflate(deflate(b"abc"), 3) == b"abc"
    with pytest.raises(FileFormatError, match="2 bytes follow the end"):
        inflate(deflate(b"abc") + b"xx", 3)
    with pytest.raises(FileFormatError, match="ends early"):
        inflate(huffman(b"abcdefgh" * 100)[:-3], 800)
    with pytest.raises(FileFormatError, match="is corrupt"):
        inflate(b"\xff\xff\xff", 10)
    assert inflate_prefix(deflate(b"abc") + b"rest", 3) == (b"abc", len(deflate(b"abc")))


def test_huffman_only_streams_are_plain_deflate() -> None:
    assert zlib.decompress(huffman(b"hello" * 50), -15) == b"hello" * 50


@pytest.mark.parametrize(
    ("codec", "stream", "text"),
    [
        ("gaps", b"", "is empty"),
        ("gaps", b"\x3f" + stored(b"\0"), "impossible shift"),
        ("gaps", b"\x00" + stored(bytes([0, 2, 255, 41])), "lists 3 positions instead of 4"),
        ("gaps", b"\x00" + stored(bytes([0, 2, 1, 1, 255])), "loose escape"),
        ("gaps", b"\x00" + stored(bytes([0, 2, 255, 255, 254, 0])), "runs to position 769"),
        ("gaps", b"\x00" + stored(bytes(9)), "more than the 7 bytes"),
        ("gaps", b"\x03\x10\xf0" + stored(bytes([0, 0, 37, 0])), "bits are set behind the end"),
        ("gaps", b"\x1f\x00", "cannot list 4 positions"),
        ("bitmap", bytes(75), "keeps 0 weights, its entry says 4"),
        ("bitmap", bytes(3), "needs 75 bytes"),
        ("bitmap-deflate", stored(bytes(76)), "more than the 75 bytes"),
        ("all", b"", "does not fit"),
        ("none", b"", "does not fit"),
        ("seeded-mask", bytes(4), "takes 5 bytes"),
        ("channels", bytes(75), "keeps 0 weights"),
        ("n-of-m", b"", "does not fit a tensor of structure 'element'"),
    ],
)
def test_malformed_position_streams_are_refused(codec: str, stream: bytes, text: str) -> None:
    with pytest.raises(FileFormatError, match=text):
        POSITIONS[codec].decode(stream, layout_of(GOLDEN))


def test_gaps_that_wrap_around_are_refused() -> None:
    # 2**17 steps of 2**47: in 64 bits their sum is 0, so that the last position lies within the tensor again.
    count, shift = 2**17, 40
    quotients, remainders = np.full(count, 127, np.uint8), np.full(count, 2**shift - 1, np.uint64)
    quotients[0], remainders[0] = 128, 4
    stream = bytes([shift]) + bits.pack(remainders, shift).tobytes() + huffman(quotients.tobytes())
    with pytest.raises(FileFormatError, match="runs to position 4 of a tensor of 262144 weights"):
        POSITIONS["gaps"].decode(stream, Layout((2**18,), "element", 0, count))


def test_a_mask_is_no_seed_where_the_seed_is_none_of_ours() -> None:
    mask = np.arange(8) < 3
    for seed in (-1, 2**32):
        assert POSITIONS["seeded-mask"].encode(mask, Layout((8,), "element", 0, 3, "w", seed)) is None


def test_malformed_n_of_m_streams_are_refused() -> None:
    layout = Layout((2, 12), "2:4", 0, 12)
    with pytest.raises(FileFormatError, match="take 2 bytes, not 3"):
        POSITIONS["n-of-m"].decode(bytes(3), layout)
    with pytest.raises(FileFormatError, match="out of range"):
        POSITIONS["n-of-m"].decode((6**6).to_bytes(2, "little"), layout)
    with pytest.raises(FileFormatError, match="cannot keep 11"):
        POSITIONS["n-of-m"].decode(bytes(2), Layout((2, 12), "2:4", 0, 11))


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"", "does not fit"),
        (b"\x06\x00\x80\x00" + bytes(20), "does not fit"),
        (b"\x03\x00\x80\x00", "ends early"),
        (b"\x03\x00\x80\x00" + bytes([216, 0]) + bytes(12), "out of range"),
        (b"\x03\x00\x80\x00" + bytes([0, 6]) + bytes(12), "follow the last value"),
        (b"\x03\x00\x00\x01" + bytes(14), "exponent that its type"),
        (b"\x03\x00\x00\x00" + bytes([1, 0]) + bytes(12), "exponent that its type"),
        (b"\x03\x08\x80\x00" + bytes(14), "planes that its type"),
        (b"\x03\x00\x80\x00" + bytes(15), "1 bytes follow"),
        (b"\x03\x04\x80\x00" + bytes(2) + stored(bytes(3)) + bytes(8), "holds 3 bytes instead of 4"),
    ],
)
def test_malformed_float_streams_are_refused(stream: bytes, text: str) -> None:
    with pytest.raises(FileFormatError, match=text):
        VALUES["floats"].decode(stream, 4, np.dtype(np.float32))


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"", "does not fit"),
        (b"\x16\x00\x00\x00\x00", "ends early"),
        (b"\x1f" + bytes(4) + stored(bytes(4)) + bytes(16), "does not fit"),
        (b"\x07" + bytes(4) + stored(bytes(5)) + bytes(4), "more than the 4 bytes"),
        (b"\x07" + bytes(4) + stored(bytes(3)) + bytes(4), "3 symbols and 4 more bytes, not 4 and 4"),
        (b"\x07" + bytes(4) + stored(bytes(4)) + bytes(5), "4 symbols and 5 more bytes, not 4 and 4"),
        (b"\x07" + bytes(4) + stored(b"\xff" * 4) + bytes(19), "and 19 more bytes, not 4 and 20"),
        (b"\x07\x00\x00\x00\x80" + stored(bytes(4)) + bytes(4), "value that its type does not have"),
        (b"\x07\xff\xff\xff\x7f" + stored(bytes([0, 0, 1, 0])) + bytes(4), "value that its type does not have"),
        (b"\x1e" + bytes(4) + stored(bytes([0, 0, 2, 0])) + bytes(16), "value that its type does not have"),
        (b"\x07" + bytes(4) + stored(b"\xff" * 4) + b"\xff" * 20, "value that its type does not have"),
        (b"\x07" + bytes(4) + stored(b"\xff" * 4) + b"\xff\xff\xff\x00" * 4 + bytes(4), "that its type does not"),
        (b"\x00" + bytes(4) + stored(bytes(4)) + b"\x10", "bits are set behind the end"),
    ],
)
def test_malformed_magnitude_streams_are_refused(stream: bytes, text: str) -> None:
    with pytest.raises(FileFormatError, match=text):
        VALUES["magnitudes"].decode(stream, 4, np.dtype(np.float32))


@given(st.sampled_from(["float16", "bfloat16", "float32", "float64"]), st.integers(0, 2**32))
def test_magnitudes_of_every_shift_round_trip(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = numpy_dtype(dtype)
    unsigned = np.dtype(f"<u{kind.itemsize}")
    # Magnitudes within 2**width of a base, whatever they mean as floats: every shift is chosen at some width.
    width = int(rng.integers(0, 8 * kind.itemsize))
    magnitudes = rng.integers(0, 1 << width, 300, np.uint64) | (
        np.uint64(1 << (8 * kind.itemsize - 1)) - np.uint64(1 << width)
    )
    signs = rng.integers(0, 2, 300, np.uint64) << np.uint64(8 * kind.itemsize - 1)
    values = (magnitudes | signs).astype(unsigned).view(kind)
    stream = VALUES["magnitudes"].encode(values)
    assert stream is not None
    assert VALUES["magnitudes"].decode(stream, 300, kind).tobytes() == values.tobytes()
    assert len(stream) < 300 * (width + 1) / 8 + 300


def test_half_precision_padding_bits_are_refused() -> None:
    stream = VALUES["floats"].encode(np.array([1.0, 2.0], np.float16))
    assert stream is not None
    with pytest.raises(FileFormatError, match="behind the end of a mantissa"):
        VALUES["floats"].decode(stream[:-1] + b"\x01", 2, np.dtype(np.float16))


def test_malformed_raw_values_are_refused() -> None:
    with pytest.raises(FileFormatError, match="take 12 bytes, not 11"):
        VALUES["raw"].decode(bytes(11), 3, np.dtype(np.float32))
    with pytest.raises(FileFormatError, match="neither 0 nor 1"):
        VALUES["raw"].decode(b"\x00\x02", 2, np.dtype(np.bool_))


def test_codecs_survive_any_bytes() -> None:
    """Random streams either decode to something of the right size or raise the one error."""
    rng = np.random.default_rng(3)
    layouts = [layout_of(GOLDEN), Layout((2, 12), "2:4", 0, 12), Layout((3, 4), "channel", 1, 6)]
    for _, (name, codec), layout in itertools.product(range(60), POSITIONS.items(), layouts):
        try:
            mask = codec.decode(rng.bytes(int(rng.integers(0, 30))), layout)
        except FileFormatError:
            continue
        assert mask.shape == layout.shape, name
        assert np.count_nonzero(mask) == layout.kept, name
    for _, codec_of_values, dtype in itertools.product(range(60), VALUES.values(), DTYPES):
        try:
            values = codec_of_values.decode(rng.bytes(int(rng.integers(0, 40))), 4, numpy_dtype(dtype))
        except FileFormatError:
            continue
        assert values.shape == (4,)
