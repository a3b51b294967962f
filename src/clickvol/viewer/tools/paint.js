// The brush and the eraser: what is under them changes at once, and the server is told at the end of the stroke.

import { t } from "../strings/strings.js";
import { packed, visitBall } from "./voxels.js";

const STAMPS_PER_RADIUS = 3; // so that a fast stroke leaves no scallops

/**
 * Return a function that begins a stroke at a place in a plane; it adds voxels, or takes them away.
 *
 * @param {Record<string, any>} parts `store`, `scene` and `session`.
 * @returns {(start: {mm: number[], plane: any}, added: boolean) => import("./gestures.js").Gesture}
 */
export function makePaint({ store, scene, session }) {
  return function paint({ mm, plane }, added) {
    const { brush, overlap, session: known } = store.get();
    const isKept = (id) => overlap === "yield" || known.objects.some((object) => object.id === id && object.frozen);
    const target = session.targetId();
    const painted = scene.beginStroke({
      label: (now) => (added ? (now === 0 || now === target || !isKept(now) ? target : now) : now === target ? 0 : now),
    });
    const axis = brush.isBall ? null : scene.fileAxis(plane.axis);
    const step = brush.radiusMm / STAMPS_PER_RADIUS;
    let last = null;
    const stamp = (place, fresh) => {
      visitBall(scene.grid.voxelOf(place), brush.radiusMm, scene.grid.spacingMm, axis, (voxel) => {
        if (!scene.grid.has(voxel)) return;
        const index = scene.grid.indexOf(voxel);
        if (painted.indices.has(index)) return;
        const value = brush.limit ? scene.valueOf(index) : 0;
        if (brush.limit && (value < brush.limit.low || value > brush.limit.high)) return;
        painted.indices.add(index);
        fresh.push(index);
      });
    };
    const go = (place) => {
      const from = last ?? place;
      const count = Math.max(1, Math.ceil(Math.hypot(...place.map((value, n) => value - from[n])) / step));
      const fresh = [];
      for (let n = 1; n <= count; n++) stamp(from.map((value, m) => value + (n / count) * (place[m] - value)), fresh);
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
          asks: false,
          done: (isAnswered) => (isAnswered ? scene.answerStroke(painted) : scene.endStroke(painted)),
        });
      },
      cancel: () => scene.endStroke(painted),
    };
  };
}
