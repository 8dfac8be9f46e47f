"""What the comparison of progressive_resize has in common: the sizes and the rate of its stages."""

LR = 0.01  # for batches of 16 to 64; the recipe's are for 256 to 4,096


def sizes(last: int) -> list[int]:
    """A quarter, half and all of the last one.

    >>> sizes(224)
    [56, 112, 224]
    """
    return [last // 4, last // 2, last]
