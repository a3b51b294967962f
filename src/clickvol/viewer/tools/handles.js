// What stands can be taken hold of: a click, an end of a line, a corner of a box.

import { boxOf, voxelsOfBox } from "./boxes.js";

/**
 * Return a function that begins to move what was pressed; a press alone offers to remove it.
 *
 * @param {Record<string, any>} parts `scene`, `session`, `sketch` and `menu`.
 * @returns {(handle: any) => import("./gestures.js").Gesture}
 */
export function makeHandles({ scene, session, sketch, menu }) {
  /** Return the prompt with its handle at another place; null where it cannot be moved. */
  function movedTo({ kind, positive, isMovable, other_mm, mark, plane }, mm) {
    if (!isMovable) return null;
    if (kind === "click") {
      const interaction = { kind, space: "ras", position: mm, positive };
      return { interaction, mark: { kind, ras_mm: mm, positive } };
    }
    if (kind === "line") {
      const interaction = { kind, space: "ras", first: other_mm, second: mm };
      return { interaction, mark: { kind, positive, points_ras_mm: [other_mm, mm] } };
    }
    const { low, high } = voxelsOfBox(scene.grid, mark);
    const [fixed, to] = [scene.grid.voxelOf(other_mm), scene.grid.nearest(mm)];
    for (const axis of [0, 1, 2]) {
      if (axis === scene.fileAxis(plane.axis)) continue;
      if (to[axis] > fixed[axis]) [low[axis], high[axis]] = [Math.round(fixed[axis] + 0.5), to[axis]];
      else [low[axis], high[axis]] = [to[axis], Math.round(fixed[axis] - 0.5)];
    }
    return boxOf(scene.grid, low, high, positive);
  }

  return function dragHandle(handle) {
    let by = /** @type {{interaction: object, mark: object} | null} */ (null);
    return {
      isClickToo: true,
      move: (mm) => {
        by = movedTo(handle, mm);
        if (by) sketch.draw(by.mark);
      },
      up: (hasMoved) => {
        if (hasMoved && by) return session.editPrompt(handle.object_id, handle.place, by.interaction, by.mark);
        return menu.open(handle);
      },
    };
  };
}
