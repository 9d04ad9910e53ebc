"""The kernels of `triton_slic`. A program of `lab_kernel` or `assign_kernel` has the pixels of one cell of one image.

Their arguments are the tensors of `triton_slic` and `cells.Layout`, and numbers; a compiler types them.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

import triton
import triton.language as tl


@triton.jit
def _pixels(box, cell, BLOCK: tl.constexpr):
    """y, x and presence of the pixels of a cell, row by row."""
    lane = tl.arange(0, BLOCK)
    height, width = tl.load(box + cell * 4 + 2), tl.load(box + cell * 4 + 3)
    return tl.load(box + cell * 4) + lane // width, tl.load(box + cell * 4 + 1) + lane % width, lane < height * width


@triton.jit
def reduce_kernel(
    images, small, height, width, stride_image, stride_channel, stride_y, stride_x,
    REDUCE: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Means of squares of the image, in [0, 1]."""
    image, channel = (tl.program_id(0) // 3).to(tl.int64), tl.program_id(0) % 3
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    corner = images + image * stride_image + channel * stride_channel
    corner += (pixel // width * stride_y + pixel % width * stride_x) * REDUCE
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(REDUCE):
        for j in range(REDUCE):
            value = tl.load(corner + i * stride_y + j * stride_x, mask=inside, other=0).to(tl.float32)
            total += value if UNIT else tl.div_rn(value, tl.full((BLOCK,), 255.0, tl.float32))
    mean = tl.div_rn(total, tl.full((BLOCK,), REDUCE * REDUCE, tl.float32))
    tl.store(small + (image * 3 + channel) * height * width + pixel, mean, mask=inside)


@triton.jit
def _row(line, x, width, inside):
    """A line's pixels left of x, at x and right of it; borders repeat outwards."""
    left = tl.load(line + tl.maximum(x - 1, 0), mask=inside, other=0.0)
    right = tl.load(line + tl.minimum(x + 1, width - 1), mask=inside, other=0.0)
    return left, tl.load(line + x, mask=inside, other=0.0), right


@triton.jit
def _linear(plane, y, x, height, width, inside):
    """A channel smoothed by (1, 2, 1) / 4 along y and x, then without sRGB's curve."""
    a, b, c = _row(plane + tl.maximum(y - 1, 0) * width, x, width, inside)
    d, e, f = _row(plane + y * width, x, width, inside)
    g, h, i = _row(plane + tl.minimum(y + 1, height - 1) * width, x, width, inside)
    smooth = ((a + b + d + e) * 0.25 + (b + c + e + f) * 0.25 + (d + e + g + h) * 0.25 + (e + f + h + i) * 0.25) * 0.25
    curved = tl.exp2(2.4 * tl.log2((tl.maximum(smooth, 0.04045) + 0.055) / 1.055))
    return tl.where(smooth > 0.04045, curved, smooth / 12.92)


@triton.jit
def _lightness(red, green, blue, R: tl.constexpr, G: tl.constexpr, B: tl.constexpr):
    """CIE's f of one row of XYZ over its white."""
    value = (R * red + G * green + B * blue) / (R + G + B)
    return tl.where(value > 0.008856, tl.exp2(tl.log2(tl.maximum(value, 1e-6)) * (1 / 3)), 7.787 * value + 16 / 116)


@triton.jit
def lab_kernel(small, box, lab, tokens, height, width, most, BLOCK: tl.constexpr):
    """CIE Lab of a cell's pixels, white D65."""
    image, cell = (tl.program_id(0) // tokens).to(tl.int64), tl.program_id(0) % tokens
    y, x, inside = _pixels(box, cell, BLOCK)
    plane = small + image * 3 * height * width
    red = _linear(plane, y, x, height, width, inside)
    green = _linear(plane + height * width, y, x, height, width, inside)
    blue = _linear(plane + 2 * height * width, y, x, height, width, inside)
    fx = _lightness(red, green, blue, 0.412453, 0.357580, 0.180423)
    fy = _lightness(red, green, blue, 0.212671, 0.715160, 0.072169)
    fz = _lightness(red, green, blue, 0.019334, 0.119193, 0.950227)
    out = lab + (image * tokens + cell) * 3 * most + tl.arange(0, BLOCK)
    tl.store(out, 116 * fy - 16, mask=inside)
    tl.store(out + most, 500 * (fx - fy), mask=inside)
    tl.store(out + 2 * most, 200 * (fy - fz), mask=inside)


@triton.jit
def centres_kernel(parts, into, queries, tokens, NEAR: tl.constexpr, INTO: tl.constexpr, BLOCK: tl.constexpr):
    """(-2 c, |c|^2) of every region from the sums that the cells around it hold, in the order of `into`."""
    image, cell = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < tokens
    nothing = tl.zeros((BLOCK,), tl.float32)
    light, a, b, y, x, count = nothing, nothing, nothing, nothing, nothing, nothing
    for place in tl.static_range(INTO):
        slot = tl.load(into + cell * INTO + place, mask=inside, other=tokens * NEAR)
        held = slot < tokens * NEAR
        part = parts + (image * tokens * NEAR + slot) * 6
        light += tl.load(part, mask=held, other=0.0)
        a += tl.load(part + 1, mask=held, other=0.0)
        b += tl.load(part + 2, mask=held, other=0.0)
        y += tl.load(part + 3, mask=held, other=0.0)
        x += tl.load(part + 4, mask=held, other=0.0)
        count += tl.load(part + 5, mask=held, other=0.0)
    count = tl.where(inside, count, 1.0)
    light, a, b = tl.div_rn(light, count), tl.div_rn(a, count), tl.div_rn(b, count)
    y, x = tl.div_rn(y, count), tl.div_rn(x, count)
    query = queries + (image * tokens + cell) * 6
    tl.store(query, -2 * light, mask=inside)
    tl.store(query + 1, -2 * a, mask=inside)
    tl.store(query + 2, -2 * b, mask=inside)
    tl.store(query + 3, -2 * y, mask=inside)
    tl.store(query + 4, -2 * x, mask=inside)
    tl.store(query + 5, light * light + a * a + b * b + y * y + x * x, mask=inside)


@triton.jit
def assign_kernel(
    lab, box, near, queries, parts, maps, tokens, height, width, most, position,
    NEAR: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The candidate that each pixel of a cell chooses (its own cell in round FIRST), then the label (LAST) or the sums
    of (L, a, b, y, x, 1) over the pixels that chose each candidate.
    """
    image, cell = (tl.program_id(0) // tokens).to(tl.int64), tl.program_id(0) % tokens
    row, column, inside = _pixels(box, cell, BLOCK)
    channel = lab + (image * tokens + cell) * 3 * most + tl.arange(0, BLOCK)
    light = tl.load(channel, mask=inside, other=0.0)
    a = tl.load(channel + most, mask=inside, other=0.0)
    b = tl.load(channel + 2 * most, mask=inside, other=0.0)
    y, x = row.to(tl.float32) * position, column.to(tl.float32) * position
    chosen = tl.zeros((BLOCK,), tl.int32)
    if not FIRST:
        own, best = y, y
        for c in tl.static_range(NEAR):
            query = queries + (image * tokens + tl.load(near + cell * NEAR + c)) * 6
            distance = tl.load(query) * light + tl.load(query + 1) * a + tl.load(query + 2) * b
            distance += tl.load(query + 3) * y + tl.load(query + 4) * x + tl.load(query + 5)
            if c == 0:
                own, best = distance, distance
            else:
                chosen = tl.where(distance < best, c, chosen)
                best = tl.minimum(distance, best)
        # One pixel of the cell keeps its region, so that none can be empty: the first that loses least by it.
        excess = own - best
        pin = tl.argmin(tl.where(inside & (excess >= 0), excess, float("inf")), 0)  # NaN may not win
        chosen = tl.where(tl.arange(0, BLOCK) == pin, 0, chosen)
    if LAST:
        label = tl.load(near + cell * NEAR + chosen, mask=inside, other=0)
        tl.store(maps + image * height * width + row * width + column, label.to(maps.dtype.element_ty), mask=inside)
    else:
        chosen = tl.where(inside, chosen, -1)
        for c in tl.static_range(NEAR):
            mine = chosen == c
            part = parts + ((image * tokens + cell) * NEAR + c) * 6
            tl.store(part, tl.sum(tl.where(mine, light, 0.0), 0))
            tl.store(part + 1, tl.sum(tl.where(mine, a, 0.0), 0))
            tl.store(part + 2, tl.sum(tl.where(mine, b, 0.0), 0))
            tl.store(part + 3, tl.sum(tl.where(mine, y, 0.0), 0))
            tl.store(part + 4, tl.sum(tl.where(mine, x, 0.0), 0))
            tl.store(part + 5, tl.sum(mine.to(tl.float32), 0))
