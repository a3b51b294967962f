// The outline of a mask on the slices shown, along the borders of its voxels. Knows the grid, not the page.

/**
 * Return the borders of a mask on a slice, as pairs of corners in voxels.
 *
 * @param {{start: number[], shape: number[], voxels: Uint8Array}} mask (i, j, k) of its box, and a byte per voxel, i fastest.
 * @param {number} axis of the file across the slice, 0 to 2.
 * @param {number} at number of the slice.
 * @returns {number[][][]} [[from, to], ...]; corners lie half a voxel from centres.
 */
export function outlineOn({ start, shape, voxels }, axis, at) {
  const inner = at - start[axis];
  if (inner < 0 || inner >= shape[axis]) return [];
  const [u, v] = [0, 1, 2].filter((each) => each !== axis);
  const steps = [1, shape[0], shape[0] * shape[1]];
  const holds = (a, b) =>
    a >= 0 && b >= 0 && a < shape[u] && b < shape[v] && voxels[inner * steps[axis] + a * steps[u] + b * steps[v]] !== 0;
  const corner = (a, b) => {
    const place = [at, at, at];
    [place[u], place[v]] = [start[u] + a - 0.5, start[v] + b - 0.5];
    return place;
  };
  const edges = [];
  for (let b = 0; b <= shape[v]; b++) {
    for (let a = 0; a <= shape[u]; a++) {
      if (holds(a, b) !== holds(a - 1, b)) edges.push([corner(a, b), corner(a, b + 1)]);
      if (holds(a, b) !== holds(a, b - 1)) edges.push([corner(a, b), corner(a + 1, b)]);
    }
  }
  return edges;
}

/** Return the voxels of a drawing as the server writes one: zlib in base64, eight to a byte, i fastest. */
export async function readDrawn({ start_dhw, shape_dhw, bits }, inflate) {
  const count = shape_dhw.reduce((product, length) => product * length, 1);
  const packed = count ? await inflate(Uint8Array.from(atob(bits), (letter) => letter.charCodeAt(0))) : new Uint8Array();
  const voxels = Uint8Array.from({ length: count }, (_, n) => (packed[n >> 3] >> (7 - (n & 7))) & 1);
  return { start: start_dhw.toReversed(), shape: shape_dhw.toReversed(), voxels };
}
