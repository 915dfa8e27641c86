"""The arithmetic of convolution and pooling shapes, without torch."""

TEXT_KERNEL, TEXT_PADDING, TEXT_LENGTH, TEXT_FILTERS = 3, 1, 96, 64
"""Kernel and padding of both layers of the text CNN, and the length of a question's vector."""


def conv_output_length(length: int, kernel: int, stride: int, padding: int) -> int:
    """Length of a convolution's or pooling's output: floor((length - kernel + 2 padding) / stride) + 1.

    All in positions along one axis. Raises ValueError when the kernel does not fit the padded input.
    """
    if min(length, kernel, stride) < 1 or padding < 0:
        raise ValueError(
            f"length, kernel and stride must be at least 1 and padding at least 0, "
            f"got length {length}, kernel {kernel}, stride {stride}, padding {padding}"
        )
    if kernel > length + 2 * padding:
        raise ValueError(f"a kernel of {kernel} does not fit an input of {length} padded by {padding} on both sides")
    return (length - kernel + 2 * padding) // stride + 1


def stride_for(length_in: int, length_out: int, kernel: int, padding: int) -> int:
    """Smallest stride that turns ``length_in`` positions into ``length_out``; inverse of :func:`conv_output_length`.

    From floor(span / s) = length_out - 1 the smallest candidate is floor(span / length_out) + 1 (span is the range
    the kernel can move over); raises ValueError when that candidate misses, for then no stride gives the length.
    """
    span = conv_output_length(length_in, kernel, 1, padding) - 1
    if length_out < 1:
        raise ValueError(f"the output length must be at least 1, got {length_out}")
    stride = span // length_out + 1
    if conv_output_length(length_in, kernel, stride, padding) != length_out:
        raise ValueError(
            f"no stride turns length {length_in} into {length_out} with kernel {kernel} and padding {padding}"
        )
    return stride


def pooling_windows(length: int, stride: int) -> list[list[int]]:
    """Positions of the convolution's output in each window of the pooling that follows it, both with one stride."""
    convolved = conv_output_length(length, TEXT_KERNEL, stride, TEXT_PADDING)
    pooled = conv_output_length(convolved, TEXT_KERNEL, stride, TEXT_PADDING)
    return [
        [c for c in range(p * stride - TEXT_PADDING, p * stride - TEXT_PADDING + TEXT_KERNEL) if 0 <= c < convolved]
        for p in range(pooled)
    ]


def text_function(stride: int) -> tuple[tuple[int, ...], ...]:
    """Where the convolutions of every pooling window are centred: text CNNs of strides that share it are one function.

    They need equal weights for that, whose shapes are equal then.
    """
    return tuple(tuple(c * stride for c in window) for window in pooling_windows(TEXT_LENGTH, stride))


def input_coverage(stride: int, *, length: int = TEXT_LENGTH) -> list[int]:
    """Which of a text CNN's inputs can reach its output at all, in order: the strides of both layers multiply."""
    taps = range(-TEXT_PADDING, TEXT_KERNEL - TEXT_PADDING)
    reached = {c * stride + tap for window in pooling_windows(length, stride) for c in window for tap in taps}
    return sorted(reached & set(range(length)))
