// The mouse over the planes: what is a click and what is a drag.

const DRAG_PIXELS = 4; // a hand shakes this much
const ZOOM_PER_NOTCH = 1.15;

/**
 * Listen to the canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{click: (x: number, y: number, isShift: boolean) => void, window: (dx: number, dy: number) => void,
 *   zoom: (factor: number) => void}} acts
 */
export function listenToPointer(canvas, acts) {
  let pressed = null; // {x, y, moved} since the button went down
  let rightAt = null; // where the right button was last

  // The event that NiiVue puts its crosshair by; that of a pointer has fractions of pixels.
  canvas.addEventListener("mousedown", (event) => {
    if (event.button === 0) pressed = { x: event.clientX, y: event.clientY, moved: 0 };
  });

  canvas.addEventListener("pointerdown", (event) => {
    canvas.classList.add("pointed");
    if (event.button === 2) {
      rightAt = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    if (pressed) {
      const distance = Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y);
      pressed.moved = Math.max(pressed.moved, distance);
    }
    if (rightAt && event.buttons & 2) {
      acts.window(event.clientX - rightAt[0], event.clientY - rightAt[1]);
      rightAt = [event.clientX, event.clientY];
    }
  });

  canvas.addEventListener("pointerup", (event) => {
    if (event.button === 2) rightAt = null;
  });

  canvas.addEventListener("click", (event) => {
    const isClick = pressed && pressed.moved <= DRAG_PIXELS && !event.ctrlKey;
    // The second click of a double click is the same place again.
    if (isClick && event.detail <= 1) acts.click(pressed.x, pressed.y, event.shiftKey);
    pressed = null;
  });

  document.addEventListener("keydown", () => canvas.classList.remove("pointed"), { capture: true });
  canvas.addEventListener("blur", () => canvas.classList.remove("pointed"));

  // NiiVue would set the window anew.
  canvas.addEventListener("dblclick", (event) => event.stopImmediatePropagation(), { capture: true });

  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      acts.zoom(ZOOM_PER_NOTCH ** -Math.sign(event.deltaY));
    },
    { capture: true, passive: false },
  );
}
