// Voxels that are drawn, as the server counts them: (i, j, k) of the file, i fastest. Knows neither page nor NiiVue.

/** A grid of voxels: how many, where, and how far apart. */
export class Grid {
  /**
   * @param {number[]} shape number of voxels along i, j and k.
   * @param {number[][]} affine from (i, j, k) to RAS mm; at least three rows of four.
   */
  constructor(shape, affine) {
    this.shape = shape;
    this.affine = affine;
    this.spacingMm = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => affine[row][axis])));
    this.inverse = inverseOf(affine);
  }

  /** Return the place of a voxel (whole numbers are centres) in RAS mm. */
  mmOf(voxel) {
    return [0, 1, 2].map((row) => dot(this.affine[row], voxel) + this.affine[row][3]);
  }

  /** Return where a place in RAS mm lies, in voxels, not rounded. */
  voxelOf(mm) {
    const from = mm.map((value, row) => value - this.affine[row][3]);
    return this.inverse.map((row) => dot(row, from));
  }

  /** Return the voxel of the grid that is nearest to a place in RAS mm. */
  nearest(mm) {
    return this.voxelOf(mm).map((value, axis) => Math.min(Math.max(Math.round(value), 0), this.shape[axis] - 1));
  }

  has(voxel) {
    return voxel.every((value, axis) => value >= 0 && value < this.shape[axis]);
  }

  /** Return the number of a voxel in the file. */
  indexOf(voxel) {
    return voxel[0] + this.shape[0] * (voxel[1] + this.shape[1] * voxel[2]);
  }

  voxelAt(index) {
    const [ni, nj] = this.shape;
    return [index % ni, Math.floor(index / ni) % nj, Math.floor(index / (ni * nj))];
  }
}

const dot = (row, place) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2];

function inverseOf(affine) {
  const [a, b, c] = affine;
  const minor = (m, n) => {
    const rows = [a, b, c].filter((_, row) => row !== m);
    const [[p, q], [r, s]] = rows.map((row) => row.slice(0, 3).filter((_, column) => column !== n));
    return (p * s - q * r) * ((m + n) % 2 ? -1 : 1);
  };
  const determinant = [0, 1, 2].reduce((sum, n) => sum + a[n] * minor(0, n), 0);
  return [0, 1, 2].map((m) => [0, 1, 2].map((n) => minor(n, m) / determinant));
}

/** Return the voxels of a straight stroke between two places (in voxels), both ends in it. */
export function strokeVoxels(from, to) {
  const steps = Math.ceil(2 * Math.max(...from.map((value, axis) => Math.abs(to[axis] - value)))) + 1;
  const voxels = [];
  for (let n = 0; n < steps; n++) {
    const part = steps > 1 ? n / (steps - 1) : 0;
    voxels.push(from.map((value, axis) => Math.round(value + part * (to[axis] - value))));
  }
  return voxels;
}

/**
 * Return the voxels of a slice whose centres lie in a polygon, by the even-odd rule.
 *
 * @param {number[][]} corners in voxels, not rounded.
 * @param {number} axis across the slice.
 */
export function polygonVoxels(corners, axis) {
  const [across, down] = [0, 1, 2].filter((each) => each !== axis);
  const level = Math.round(corners[0][axis]);
  const rows = corners.map((corner) => corner[down]);
  const voxels = [];
  for (let row = Math.ceil(Math.min(...rows)); row <= Math.max(...rows); row++) {
    const crossings = corners.flatMap((corner, n) => {
      const next = corners[(n + 1) % corners.length];
      if (corner[down] > row === next[down] > row) return [];
      const part = (row - corner[down]) / (next[down] - corner[down]);
      return [corner[across] + part * (next[across] - corner[across])];
    });
    crossings.sort((one, other) => one - other);
    for (let n = 0; n + 1 < crossings.length; n += 2) {
      for (let column = Math.ceil(crossings[n]); column <= crossings[n + 1]; column++) {
        const voxel = [0, 0, 0];
        [voxel[axis], voxel[across], voxel[down]] = [level, column, row];
        voxels.push(voxel);
      }
    }
  }
  return voxels;
}

/**
 * Visit the voxels within a distance of a place; at least the one under it.
 *
 * @param {number[]} centre in voxels, not rounded.
 * @param {number} radiusMm
 * @param {number[]} spacingMm
 * @param {number|null} axis across the one slice that is meant; null for all slices.
 * @param {(voxel: number[]) => void} visit
 */
export function visitBall(centre, radiusMm, spacingMm, axis, visit) {
  const reach = spacingMm.map((spacing, each) => (each === axis ? 0 : radiusMm / spacing));
  const ends = (end) => (value, each) => (each === axis ? Math.round(value) : end(value, reach[each]));
  const low = centre.map(ends((value, far) => Math.min(Math.ceil(value - far), Math.round(value))));
  const high = centre.map(ends((value, far) => Math.max(Math.floor(value + far), Math.round(value))));
  const squared = (value, each) => (each === axis ? 0 : ((value - centre[each]) * spacingMm[each]) ** 2);
  const isNearest = (voxel) => voxel.every((value, each) => value === Math.round(centre[each]));
  for (let k = low[2]; k <= high[2]; k++) {
    for (let j = low[1]; j <= high[1]; j++) {
      const rest = squared(k, 2) + squared(j, 1);
      for (let i = low[0]; i <= high[0]; i++) {
        // A brush finer than a voxel still paints the one under it.
        if (rest + squared(i, 0) <= radiusMm ** 2 || isNearest([i, j, k])) visit([i, j, k]);
      }
    }
  }
}

/** Return {start, shape} of the box around voxels. */
export function boxAround(voxels) {
  const [start, stop] = [Infinity, -Infinity].map((value) => [value, value, value]);
  for (const voxel of voxels) {
    for (let axis = 0; axis < 3; axis++) {
      start[axis] = Math.min(start[axis], voxel[axis]);
      stop[axis] = Math.max(stop[axis], voxel[axis] + 1);
    }
  }
  return { start, shape: stop.map((value, axis) => value - start[axis]) };
}

/** Return the bits of voxels in a box, eight to a byte, the first voxel in the highest bit. */
export function bitsOf(voxels, { start, shape }) {
  const bits = new Uint8Array(Math.ceil((shape[0] * shape[1] * shape[2]) / 8));
  for (const voxel of voxels) {
    const [i, j, k] = voxel.map((value, axis) => value - start[axis]);
    const n = i + shape[0] * (j + shape[1] * k);
    bits[n >> 3] |= 128 >> (n & 7);
  }
  return bits;
}

/** Return voxels as the server takes them: a box, and its bits as zlib in base64. */
export async function packed(voxels) {
  const box = boxAround(voxels);
  const stream = new Blob([bitsOf(voxels, box)]).stream().pipeThrough(new CompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let text = "";
  for (let n = 0; n < bytes.length; n += 8192) text += String.fromCharCode(...bytes.subarray(n, n + 8192));
  return { start_dhw: box.start.toReversed(), shape_dhw: box.shape.toReversed(), bits: btoa(text) };
}
