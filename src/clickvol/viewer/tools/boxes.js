// Boxes along the axes of the file: by their first and last voxel, and by the corners that are drawn.

/** Return the box of two voxels as an interaction, and as a mark until the server has it. */
export function boxOf(grid, low, high, positive) {
  const interaction = { kind: "box", space: "ijk", first: low, second: high, positive };
  const corners = [low.map((value) => value - 0.5), high.map((value) => value + 0.5)];
  return { interaction, mark: { kind: "box", positive, points_ras_mm: corners.map((corner) => grid.mmOf(corner)) } };
}

/** Return the first and the last voxel of a box that stands. */
export function voxelsOfBox(grid, { points_ras_mm }) {
  const corners = points_ras_mm.map((mm) => grid.voxelOf(mm));
  const [low, high] = [Math.min, Math.max].map((end) => [0, 1, 2].map((n) => end(corners[0][n], corners[1][n])));
  return { low: low.map((value) => Math.round(value + 0.5)), high: high.map((value) => Math.round(value - 0.5)) };
}

/**
 * Return the last prompt of an object and its voxels, if it is a box on a slice that a box in another plane makes
 * one in space: where the planes meet, and the new one says how far the old one reaches.
 */
export function boxInSpace(grid, object, axis, low, high) {
  const last = [...object.clicks, ...object.marks].toSorted((one, other) => other.place - one.place)[0];
  if (last?.kind !== "box" || !last.positive) return null;
  const old = voxelsOfBox(grid, last);
  const flat = [0, 1, 2].filter((n) => old.low[n] === old.high[n]);
  if (flat.length !== 1 || flat[0] === axis || low[axis] < old.low[axis] || low[axis] > old.high[axis]) return null;
  [old.low[flat[0]], old.high[flat[0]]] = [low[flat[0]], high[flat[0]]];
  return { place: last.place, ...old };
}
