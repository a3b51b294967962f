// The tools: what a press, a drag and a release over a plane become, and what of it goes to the server.

import { selectedObject } from "../state.js";
import { t } from "../strings/strings.js";
import { packed, polygonVoxels, strokeVoxels, visitBall } from "./voxels.js";

const LEAST_PIXELS = 4; // a hand shakes this much; a shorter drag is none
const STAMPS_PER_RADIUS = 3; // so that a fast stroke leaves no scallops

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

/** Return the box of two voxels as an interaction, and as a mark until the server has it. */
function boxOf(grid, low, high, positive) {
  const interaction = { kind: "box", space: "ijk", first: low, second: high, positive };
  const corners = [low.map((value) => value - 0.5), high.map((value) => value + 0.5)];
  return { interaction, mark: { kind: "box", positive, points_ras_mm: corners.map((corner) => grid.mmOf(corner)) } };
}

/** Return the first and the last voxel of a box that stands. */
function voxelsOfBox(grid, { points_ras_mm }) {
  const corners = points_ras_mm.map((mm) => grid.voxelOf(mm));
  const [low, high] = [Math.min, Math.max].map((end) => [0, 1, 2].map((n) => end(corners[0][n], corners[1][n])));
  return { low: low.map((value) => Math.round(value + 0.5)), high: high.map((value) => Math.round(value - 0.5)) };
}

/**
 * Return the last prompt of an object and its voxels, if it is a box on a slice that a box in another plane makes
 * one in space: where the planes meet, and the new one says how far the old one reaches.
 */
function boxInSpace(grid, object, axis, low, high) {
  const last = [...object.clicks, ...object.marks].toSorted((one, other) => other.place - one.place)[0];
  if (last?.kind !== "box" || !last.positive) return null;
  const old = voxelsOfBox(grid, last);
  const flat = [0, 1, 2].filter((n) => old.low[n] === old.high[n]);
  if (flat.length !== 1 || flat[0] === axis || low[axis] < old.low[axis] || low[axis] > old.high[axis]) return null;
  [old.low[flat[0]], old.high[flat[0]]] = [low[flat[0]], high[flat[0]]];
  return { place: last.place, ...old };
}

/**
 * Make the tools of a page.
 *
 * @param {object} parts `store`, `scene`, `session` and `notify`; `sketch` draws what is being drawn, `markers`
 *   knows what stands where, `menu` offers what can be done to it; `isPositive(isShift)` says what a prompt means.
 */
export function makeGestures({ store, scene, session, notify, sketch, markers, menu, isPositive }) {
  let gesture = null; // {plane, move(mm, x, y), up(hasMoved), cancel()} between press and release
  let pressedAt = [0, 0];
  let distance = 0;

  /** Return whole voxels of the scan in a plane: those of the slice shown, also where the pointer has left the scan. */
  const voxelIn = (mm) =>
    scene.grid.voxelOf(mm).map((value, axis) => Math.min(Math.max(Math.round(value), 0), scene.grid.shape[axis] - 1));

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
      const from = voxelIn(mm);
      const axis = scene.fileAxis(plane.axis);
      let [low, high] = [from, from];
      return {
        move: (place) => {
          const to = voxelIn(place);
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

  /** Paint at once, tell the server at the end. */
  function paint({ mm, plane }, added) {
    const { brush, overlap, session: known } = store.get();
    const isKept = (id) => overlap === "yield" || known.objects.some((object) => object.id === id && object.frozen);
    const target = session.targetId();
    const painted = scene.beginStroke({
      label: (now) => (added ? (now === 0 || now === target || !isKept(now) ? target : now) : now === target ? 0 : now),
    });
    const axis = brush.isBall ? null : scene.fileAxis(plane.axis);
    const step = brush.radiusMm / STAMPS_PER_RADIUS;
    let last = null;
    const stamp = (place) => {
      const fresh = [];
      visitBall(scene.grid.voxelOf(place), brush.radiusMm, scene.grid.spacingMm, axis, (voxel) => {
        if (!scene.grid.has(voxel)) return;
        const index = scene.grid.indexOf(voxel);
        if (painted.indices.has(index)) return;
        const value = brush.limit ? scene.valueOf(index) : 0;
        if (brush.limit && (value < brush.limit.low || value > brush.limit.high)) return;
        painted.indices.add(index);
        fresh.push(index);
      });
      return fresh;
    };
    const go = (place) => {
      const from = last ?? place;
      const count = Math.max(1, Math.ceil(Math.hypot(...place.map((value, n) => value - from[n])) / step));
      const fresh = [];
      for (let n = 1; n <= count; n++) fresh.push(...stamp(from.map((value, m) => value + (n / count) * (place[m] - value))));
      last = place;
      scene.paintStroke(painted, fresh, plane);
    };
    go(mm);
    return {
      move: go,
      isClickToo: true,
      up: () => {
        if (!painted.indices.size) return scene.endStroke(painted);
        const voxels = [...painted.indices].map((index) => scene.grid.voxelAt(index));
        const interaction = packed(voxels).then((drawn) => ({ kind: "brush", voxels: drawn, added }));
        return session.shape(interaction, {
          says: added ? t("Painting") : t("Erasing"),
          done: (isAnswered) => (isAnswered ? scene.answerStroke(painted) : scene.endStroke(painted)),
        });
      },
      cancel: () => scene.endStroke(painted),
    };
  }

  /** Move a click, an end of a line or a corner of a box; a press alone offers to remove it. */
  function dragHandle(handle) {
    let by = null;
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
  }

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
    const [fixed, to] = [scene.grid.voxelOf(other_mm), voxelIn(mm)];
    for (const axis of [0, 1, 2]) {
      if (axis === scene.fileAxis(plane.axis)) continue;
      if (to[axis] > fixed[axis]) [low[axis], high[axis]] = [Math.round(fixed[axis] + 0.5), to[axis]];
      else [low[axis], high[axis]] = [to[axis], Math.round(fixed[axis] - 0.5)];
    }
    return boxOf(scene.grid, low, high, positive);
  }

  function down(x, y, isShift) {
    const { opened, tool } = store.get();
    const plane = scene.planeUnder(x, y);
    const isOver = opened && plane && plane.axis !== null;
    menu.close();
    if (!isOver || tool === "navigate") return false;
    [pressedAt, distance] = [[x, y], 0];
    const handle = isShift ? null : markers.handleAt(x, y, tool);
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
    if (distance >= LEAST_PIXELS) gesture.move(scene.mmIn(gesture.plane, x, y), x, y);
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
    draw(kind, x, y, isShift) {
      if (kind === "down") return down(x, y, isShift);
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
