"use strict";
// Selecting on the map: a line drawn around marks, a mark alone, or all marks in view.
(() => {
  const { at, selection } = gapless;
  const canvas = at("plot"), switchButton = at("lasso");
  let line = null;

  // Whether a point lies inside a closed line: a ray to the right crosses it an odd number of times.
  const isInside = ({ x, y }, corners) => corners.reduce((inside, one, i) => {
    const next = corners[(i + 1) % corners.length];
    const crosses = one.y > y !== next.y > y && x < one.x + ((y - one.y) * (next.x - one.x)) / (next.y - one.y);
    return crosses ? !inside : inside;
  }, false);

  const isOn = () => switchButton.getAttribute("aria-pressed") === "true";
  const spot = (event) => ({ x: event.offsetX, y: event.offsetY });
  // Before the listeners of map.js, which then neither move the map nor choose a mark.
  const first = (name, act) => canvas.addEventListener(name, act, { capture: true });
  first("pointerdown", (event) => {
    if (!isOn() && !event.shiftKey) return;
    event.stopImmediatePropagation();
    canvas.setPointerCapture(event.pointerId);
    line = [spot(event)];
  });
  first("pointermove", (event) => {
    if (!line) return;
    event.stopImmediatePropagation();
    line.push(spot(event));
    gapless.map.drawLine(line);
  });
  first("pointerup", (event) => {
    if (!line) return;
    event.stopImmediatePropagation();
    const [start, drawn] = [line[0], line];
    line = null;
    const isClick = drawn.every((one) => Math.hypot(one.x - start.x, one.y - start.y) <= 4);
    if (isClick) {
      const id = gapless.map.idAt(start);
      if (id) selection.toggle(id);
      else gapless.map.draw();
    } else {
      selection.add(gapless.map.idsWhere((point) => isInside(point, drawn)));
    }
  });
  first("pointercancel", () => {
    line = null;
    gapless.map.draw();
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key !== " ") return;
    event.preventDefault();
    const id = gapless.map.chosenId();
    if (id) selection.toggle(id);
  });
  const selectView = () => selection.add(gapless.map.idsWhere(({ x, y }) => x >= 0 && y >= 0 && x <= canvas.clientWidth && y <= canvas.clientHeight));
  switchButton.addEventListener("click", () => {
    switchButton.setAttribute("aria-pressed", String(!isOn()));
    canvas.classList.toggle("lasso", isOn());
  });
  at("select-view").addEventListener("click", selectView);
})();
