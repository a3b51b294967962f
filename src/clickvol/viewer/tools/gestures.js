// The tools: what a press, a drag and a release over a plane become, and what of it goes to the server.

import { selectedObject } from "../state.js";
import { t } from "../strings/strings.js";
import { boxInSpace, boxOf } from "./boxes.js";
import { makeHandles } from "./handles.js";
import { makePaint } from "./paint.js";
import { packed, polygonVoxels, strokeVoxels } from "./voxels.js";

const LEAST_PIXELS = 4; // a hand shakes this much; a shorter drag is none

/**
 * @typedef {{plane?: any, move: (mm: number[]) => void, up: (hasMoved: boolean) => void, cancel?: () => void,
 *   isClickToo?: boolean}} Gesture what a press began; `isClickToo`: a press without a drag counts, too
 */

/** The tools in the order of the panel: id, key, and whether a drag draws. */
export const TOOLS = [
  { id: "navigate", key: "v", draws: false },
  { id: "point", key: "p", draws: false },
  { id: "line", key: "l", draws: true },
  { id: "box", key: "r", draws: true },
  { id: "scribble", key: "s", draws: true },
  { id: "lasso", key: "c", draws: true },
  { id: "brush", key: "d", draws: true },
  { id: "eraser", key: "e", draws: true },
];

/**
 * Make the tools of a page.
 *
 * @param {Record<string, any>} parts `store`, `scene`, `session` and `notify`; `sketch` draws what is being drawn, `markers`
 *   knows what stands where, `menu` offers what can be done to it; `isPositive(isShift)` says what a prompt means.
 */
export function makeGestures({ store, scene, session, notify, sketch, markers, menu, isPositive }) {
  let gesture = /** @type {Gesture | null} */ (null); // between press and release
  const paint = makePaint({ store, scene, session });
  const dragHandle = makeHandles({ scene, session, sketch, menu });
  let pressedAt = [0, 0];
  let distance = 0;

  const starts = {
    line({ mm }) {
      let end = mm;
      return {
        move: (place) => {
          end = place;
          sketch.draw({ kind: "line", points_ras_mm: [mm, end] });
        },
        up: () => {
          const interaction = { kind: "line", space: "ras", first: mm, second: end };
          session.shape(interaction, { pending: { kind: "line", positive: true, points_ras_mm: [mm, end] } });
        },
      };
    },

    box({ mm, plane, positive }) {
      const from = scene.grid.nearest(mm);
      const axis = scene.fileAxis(plane.axis);
      let [low, high] = [from, from];
      return {
        move: (place) => {
          const to = scene.grid.nearest(place);
          to[axis] = from[axis];
          [low, high] = [Math.min, Math.max].map((end) => from.map((value, n) => end(value, to[n])));
          sketch.draw(boxOf(scene.grid, low, high, positive).mark);
        },
        up: () => {
          if (low.every((value, n) => value === high[n])) return;
          const object = selectedObject(store.get());
          const whole = positive && object ? boxInSpace(scene.grid, object, axis, low, high) : null;
          if (whole) {
            const { interaction, mark } = boxOf(scene.grid, whole.low, whole.high, true);
            return session.editPrompt(object.id, whole.place, interaction, mark);
          }
          const { interaction, mark } = boxOf(scene.grid, low, high, positive);
          return session.shape(interaction, { pending: mark });
        },
      };
    },

    scribble: ({ mm, positive }) => stroke("scribble", mm, positive),
    lasso: ({ mm, plane, positive }) => stroke("lasso", mm, positive, scene.fileAxis(plane.axis)),
    brush: (start) => paint(start, !start.isShift),
    eraser: (start) => paint(start, start.isShift),
  };

  function stroke(kind, mm, positive, axis = null) {
    const places = [mm];
    return {
      move: (place) => {
        places.push(place);
        sketch.draw({ kind: kind === "lasso" ? "curve" : "stroke", positive, points_ras_mm: places });
      },
      up: () => {
        const corners = places.map((place) => scene.grid.voxelOf(place));
        const drawn =
          axis === null
            ? corners.slice(1).flatMap((corner, n) => strokeVoxels(corners[n], corner))
            : polygonVoxels(corners, axis);
        const inside = new Map(drawn.filter((voxel) => scene.grid.has(voxel)).map((voxel) => [voxel.join(), voxel]));
        if (!inside.size) return;
        const interaction = packed([...inside.values()]).then((voxels) => ({ kind, voxels, positive }));
        session.shape(interaction, { pending: { kind, positive, points_ras_mm: places } });
      },
    };
  }

  function down(x, y, isShift, isAgain) {
    const { opened, tool } = store.get();
    const plane = scene.planeUnder(x, y);
    const isOver = opened && plane && plane.axis !== null;
    menu.close();
    if (!isOver || tool === "navigate") return false;
    [pressedAt, distance] = [[x, y], 0];
    const handle = isShift || isAgain ? null : markers.handleAt(x, y, tool);
    if (handle) {
      gesture = { plane, ...dragHandle({ ...handle, plane }) };
      return true;
    }
    if (!(tool in starts)) return false;
    if (selectedObject(store.get())?.frozen) {
      notify("error", t("the object is frozen; unfreeze it, or choose another one"));
      return true;
    }
    const mm = scene.mmIn(plane, x, y);
    gesture = { plane, ...starts[tool]({ mm, plane, isShift, positive: isPositive(isShift) }) };
    return true;
  }

  function move(x, y) {
    if (!gesture) return;
    distance = Math.max(distance, Math.hypot(x - pressedAt[0], y - pressedAt[1]));
    if (distance >= LEAST_PIXELS) gesture.move(scene.mmIn(gesture.plane, x, y));
  }

  function up(x, y) {
    move(x, y);
    const [ended, hasMoved] = [gesture, distance >= LEAST_PIXELS];
    gesture = null;
    sketch.clear();
    if (!ended) return;
    if (hasMoved || ended.isClickToo) ended.up(hasMoved);
    else ended.cancel?.();
  }

  return {
    /** Take a press, a drag or a release; true where a tool takes it. */
    draw(kind, x, y, isShift, isAgain = false) {
      if (kind === "down") return down(x, y, isShift, isAgain);
      if (kind === "move") move(x, y);
      else up(x, y);
      return true;
    },
    /** Leave what is being drawn; false where nothing is. */
    cancel() {
      const ended = gesture;
      gesture = null;
      sketch.clear();
      ended?.cancel?.();
      return ended !== null;
    },
  };
}
