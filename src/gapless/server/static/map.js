"use strict";
// The map: drawn on a canvas when its tab is first opened. Every pair can be reached with the arrow keys.
(() => {
  const { at, make, button, thumbnail, answerOf, reasonOf, findLike, selection, say: t } = gapless; // page.js comes before
  const [canvas, card, legend, joined, colourBy, status] = ["plot", "card", "legend", "joined", "colour-by", "map-status"].map(at);
  const PALETTE = ["--blue", "--orange", "--green", "--purple", "--amber", "--sky"];
  const NEAR = 18; // pixels from a mark that still mean it
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const paper = canvas.getContext("2d");
  let data = null, chosen = -1, view = { x: 0, y: 0, scale: 1 }, drag = null, loading = false;

  const load = async () => {
    if (data || loading) return;
    loading = true;
    status.textContent = t("map.computing");
    try {
      data = await answerOf(await fetch("/api/map"));
      status.textContent = "";
      at("map-body").hidden = false;
      fill();
      reset();
    } catch (error) {
      status.textContent = reasonOf(error);
      status.classList.add("error");
    } finally {
      loading = false;
    }
  };

  const fill = () => {
    colourBy.append(...data.labels.map((name) => new Option(name.replaceAll("_", " "), name)));
    at("headlines").replaceChildren(...Object.entries(data.headlines).flatMap(([name, value]) =>
      [make("dt", "", name), make("dd", "", value.toFixed(3))]));
    at("figures").replaceChildren(...Object.entries(data.figures).map(([key, value]) => {
      const head = make("th", "", key);
      head.scope = "row";
      return make("tr", "", head, make("td", "", value.toFixed(4)));
    }));
    describe();
  };
  const describe = () => {
    const count = data.num_pairs.toLocaleString(document.documentElement.lang);
    const share = Math.round(100 * (data.shares[0] + data.shares[1]));
    at("map-facts").textContent = `${t(data.is_sample ? "map.some-pairs" : "map.all-pairs", { count })} ${t("map.variance", { share })}`;
  };

  // From the plane to pixels: the whole plane fits at scale 1.
  const size = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });
  const base = () => {
    const all = data.modalities.flatMap((one) => [...one.x.map(Math.abs), ...one.y.map(Math.abs)]);
    return (0.46 * Math.min(size().width, size().height)) / (Math.max(...all) || 1);
  };
  let unit = 1;
  const place = (x, y) => ({
    x: size().width / 2 + (x - view.x) * unit * view.scale,
    y: size().height / 2 - (y - view.y) * unit * view.scale,
  });
  const reset = () => {
    view = { x: 0, y: 0, scale: 1 };
    draw();
  };
  const zoom = (factor, where = { x: size().width / 2, y: size().height / 2 }) => {
    const scale = Math.min(60, Math.max(0.5, view.scale * factor));
    const dx = where.x - size().width / 2, dy = size().height / 2 - where.y;
    view.x += dx / unit / view.scale - dx / unit / scale;
    view.y += dy / unit / view.scale - dy / unit / scale;
    view.scale = scale;
    draw();
  };

  const shapes = {
    circle: (p, r) => paper.arc(p.x, p.y, r, 0, 2 * Math.PI),
    square: (p, r) => paper.rect(p.x - r, p.y - r, 2 * r, 2 * r),
    "triangle-up": (p, r) => polygon([[p.x, p.y - 1.25 * r], [p.x + 1.15 * r, p.y + 0.85 * r], [p.x - 1.15 * r, p.y + 0.85 * r]]),
    "triangle-down": (p, r) => polygon([[p.x, p.y + 1.25 * r], [p.x - 1.15 * r, p.y - 0.85 * r], [p.x + 1.15 * r, p.y - 0.85 * r]]),
    cross: (p, r) => polygon([[1, 3], [1, 1], [3, 1], [3, -1], [1, -1], [1, -3], [-1, -3], [-1, -1], [-3, -1], [-3, 1], [-1, 1], [-1, 3]]
      .map(([x, y]) => [p.x + 0.42 * r * x, p.y + 0.42 * r * y])),
    diamond: (p, r) => polygon([[p.x, p.y - 1.3 * r], [p.x + 1.3 * r, p.y], [p.x, p.y + 1.3 * r], [p.x - 1.3 * r, p.y]]),
  };
  const polygon = (corners) => {
    paper.moveTo(...corners[0]);
    corners.slice(1).forEach((corner) => paper.lineTo(...corner));
    paper.closePath();
  };
  const groupsBy = (label) => {
    const counts = new Map();
    for (const pair of data.pairs) {
      const value = pair.labels[label];
      if (value) counts.set(value, (counts.get(value) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map((entry) => entry[0]);
  };
  const colourOf = (modality) => {
    if (!colourBy.value) return () => css(modality.colour);
    const colours = groupsBy(colourBy.value).slice(0, PALETTE.length).map((value, index) => [value, css(PALETTE[index])]);
    const known = new Map(colours), other = css("--faint");
    return (pair) => known.get(pair.labels[colourBy.value]) || other;
  };

  const draw = () => {
    if (!data || canvas.offsetParent === null) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(size().width * ratio);
    canvas.height = Math.round(size().height * ratio);
    paper.setTransform(ratio, 0, 0, ratio, 0, 0);
    unit = base();
    const points = data.modalities.map((one) => one.x.map((x, i) => (x === null ? null : place(x, one.y[i]))));
    if (joined.checked) drawLines(points);
    const radius = data.pairs.length > 400 ? 3.2 : 4.5;
    data.modalities.forEach((modality, m) => {
      const colour = colourOf(modality);
      paper.globalAlpha = 0.8;
      points[m].forEach((point, i) => {
        if (!point) return;
        paper.fillStyle = colour(data.pairs[i]);
        paper.beginPath();
        shapes[modality.symbol](point, radius);
        paper.fill();
      });
    });
    paper.globalAlpha = 1;
    drawSelected(points, radius);
    if (chosen >= 0) drawChosen(points, radius);
    drawLegend();
  };
  const drawLines = (points) => {
    paper.globalAlpha = Math.max(0.28, Math.min(0.6, 120 / data.pairs.length));
    paper.strokeStyle = css("--faint");
    paper.lineWidth = 0.8;
    paper.beginPath();
    data.pairs.forEach((_, i) => {
      const [first, ...others] = points.map((of) => of[i]).filter(Boolean);
      for (const point of others) {
        paper.moveTo(first.x, first.y);
        paper.lineTo(point.x, point.y);
      }
    });
    paper.stroke();
  };
  const drawSelected = (points, radius) => {
    paper.strokeStyle = css("--ink");
    paper.lineWidth = 1.4;
    paper.beginPath();
    data.pairs.forEach((pair, i) => {
      if (!selection.has(pair.id)) return;
      for (const point of points.map((of) => of[i]).filter(Boolean)) {
        paper.moveTo(point.x + radius + 3, point.y);
        paper.arc(point.x, point.y, radius + 3, 0, 2 * Math.PI);
      }
    });
    paper.stroke();
  };
  const drawChosen = (points, radius) => {
    paper.strokeStyle = css("--ink");
    paper.lineWidth = 2;
    paper.beginPath();
    const own = points.map((of) => of[chosen]).filter(Boolean);
    own.forEach((point, m) => (m ? paper.lineTo(point.x, point.y) : paper.moveTo(point.x, point.y)));
    paper.stroke();
    data.modalities.forEach((modality, m) => {
      if (!points[m][chosen]) return;
      paper.beginPath();
      shapes[modality.symbol](points[m][chosen], radius + 4);
      paper.fillStyle = css(modality.colour);
      paper.fill();
      paper.stroke();
    });
  };
  const drawLegend = () => {
    const entry = (glyph, colour, text) => {
      const mark = make("span", "", glyph);
      mark.style.color = colour;
      return make("li", "", mark, ` ${text}`);
    };
    const items = data.modalities.map((one) => entry(one.glyph, colourBy.value ? css("--ink") : css(one.colour), one.name));
    if (colourBy.value) {
      const values = groupsBy(colourBy.value);
      values.slice(0, PALETTE.length).forEach((value, index) => items.push(entry("●", css(PALETTE[index]), value)));
      if (values.length > PALETTE.length) items.push(entry("●", css("--faint"), t("map.more-values", { count: values.length - PALETTE.length })));
    }
    legend.replaceChildren(...items);
  };

  const choose = (index) => {
    if (index === chosen) return;
    chosen = index;
    showCard();
    draw();
  };
  const showCard = () => {
    const index = chosen;
    const pair = data.pairs[index];
    let picture = null;
    if (pair.thumbnail) {
      picture = make("img");
      Object.assign(picture, { src: thumbnail(pair.thumbnail), alt: t("picture.of", { modality: t("tab.map"), id: pair.id }) });
    }
    const tags = Object.values(pair.labels).filter(Boolean).join(" · ");
    const acts = make("div", "acts", button(t("hit.like"), searchChosen), button(t("hit.case"), () => gapless.openCase(pair.id)), button(t(selection.has(pair.id) ? "map.deselect" : "map.select"), () => selection.toggle(pair.id)));
    card.replaceChildren(...[
      picture,
      pair.caption ? make("p", "caption", pair.caption) : null,
      make("p", "identity", t("map.pair-cosine", { cosine: pair.cosine.toFixed(3) })),
      tags ? make("p", "identity", tags) : null,
      make("p", "identity", pair.id),
      acts,
    ].filter(Boolean));
  };
  const nearest = (where) => {
    let best = -1, least = NEAR * NEAR;
    for (const one of data.modalities) {
      one.x.forEach((x, i) => {
        if (x === null) return;
        const point = place(x, one.y[i]);
        const distance = (point.x - where.x) ** 2 + (point.y - where.y) ** 2;
        if (distance < least) [best, least] = [i, distance];
      });
    }
    return best;
  };
  // The nearest pair in a direction, by the first mark of each pair.
  const towards = (dx, dy) => {
    if (chosen < 0) return choose(0);
    const marks = data.pairs.map((_, i) => data.modalities.find((one) => one.x[i] !== null)).map((one, i) => [one.x[i], one.y[i]]);
    const [fromX, fromY] = marks[chosen];
    let best = -1, least = Infinity;
    marks.forEach(([x, y], i) => {
      const along = (x - fromX) * dx + (y - fromY) * dy;
      const across = Math.abs((x - fromX) * dy) + Math.abs((y - fromY) * dx);
      if (i !== chosen && along > 0 && across <= along && along + across < least) [best, least] = [i, along + across];
    });
    if (best >= 0) choose(best);
  };
  const searchChosen = () => {
    const pair = data.pairs[chosen];
    if (!pair) return;
    findLike({ row: pair.row, id: pair.id, caption: pair.caption, has_thumbnail: pair.row === pair.thumbnail });
  };

  const spot = (event) => ({ x: event.offsetX, y: event.offsetY });
  canvas.addEventListener("pointerdown", (event) => {
    drag = { ...spot(event), moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = spot(event);
    if (drag) {
      drag.moved ||= Math.hypot(here.x - drag.x, here.y - drag.y) > 4;
      if (!drag.moved) return;
      view.x -= (here.x - drag.x) / unit / view.scale;
      view.y += (here.y - drag.y) / unit / view.scale;
      [drag.x, drag.y] = [here.x, here.y];
      draw();
      return;
    }
    const found = nearest(here);
    if (found >= 0) choose(found);
  });
  canvas.addEventListener("pointerup", (event) => {
    const found = drag && !drag.moved ? nearest(spot(event)) : -1;
    drag = null;
    if (found >= 0) choose(found);
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", searchChosen);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, spot(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowRight: () => towards(1, 0), ArrowLeft: () => towards(-1, 0), ArrowUp: () => towards(0, 1), ArrowDown: () => towards(0, -1),
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: reset, Enter: searchChosen,
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  at("zoom-in").addEventListener("click", () => zoom(1.4));
  at("zoom-out").addEventListener("click", () => zoom(1 / 1.4));
  at("zoom-all").addEventListener("click", reset);
  joined.addEventListener("change", draw);
  colourBy.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("gapless:theme", draw);
  const redraw = () => {
    if (data && chosen >= 0) showCard();
    draw();
  };
  document.addEventListener("gapless:selection", redraw);
  document.addEventListener("gapless:language", () => {
    if (data) describe();
    redraw();
  });
  // For the lasso.
  gapless.map = {
    draw,
    chosenId: () => (chosen >= 0 ? data.pairs[chosen].id : null),
    idAt: (where) => data.pairs[nearest(where)]?.id,
    idsWhere: (isMeant) => data.pairs.filter((_, i) => data.modalities.some((one) => one.x[i] !== null && isMeant(place(one.x[i], one.y[i])))).map((pair) => pair.id),
    drawLine: (line) => {
      draw();
      paper.strokeStyle = css("--blue");
      paper.lineWidth = 1.5;
      paper.setLineDash([5, 4]);
      paper.beginPath();
      line.forEach((point, i) => (i ? paper.lineTo(point.x, point.y) : paper.moveTo(point.x, point.y)));
      paper.stroke();
      paper.setLineDash([]);
    },
  };
  new ResizeObserver(draw).observe(canvas);
  document.addEventListener("gapless:tab", (event) => { if (event.detail === "map") load(); });
})();
