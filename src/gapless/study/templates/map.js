"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const plot = document.getElementById("plot");
  const colourBy = document.getElementById("colour-by");
  const joined = document.getElementById("joined");
  const card = document.getElementById("card");
  const legend = document.getElementById("legend");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = ["--blue", "--orange", "--green", "--purple", "--amber", "--sky"];
  const numModalities = page.modalities.length;
  const hidden = new Set();
  const shown = (i) => page.modalities.filter((one) => !hidden.has(one.name) && one.x[i] !== null);

  const lines = (pairs) => {
    const x = [], y = [];
    for (const i of pairs) {
      const [first, ...others] = shown(i);
      for (const other of others) {
        x.push(first.x[i], other.x[i], null);
        y.push(first.y[i], other.y[i], null);
      }
    }
    return { x, y };
  };
  const all = page.pairs.map((_, i) => i);
  const counted = (label) => {
    const counts = new Map();
    for (const pair of page.pairs) {
      const value = (pair.labels || {})[label] || "";
      if (value) counts.set(value, (counts.get(value) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map((entry) => entry[0]);
  };

  const colours = (modality) => {
    if (!colourBy.value) return css(modality.colour);
    const values = counted(colourBy.value).slice(0, palette.length);
    return page.pairs.map((pair) => {
      const index = values.indexOf((pair.labels || {})[colourBy.value]);
      return index < 0 ? css("--faint") : css(palette[index]);
    });
  };
  const traces = () => [
    { ...lines(all), mode: "lines", type: "scatter", hoverinfo: "skip", visible: joined.checked,
      line: { color: css("--faint"), width: 0.7 }, opacity: Math.max(0.2, Math.min(0.6, 120 / all.length)) },
    ...page.modalities.map((modality) => ({
      x: modality.x, y: modality.y, mode: "markers", type: "scatter", hoverinfo: "none",
      visible: !hidden.has(modality.name),
      marker: { symbol: modality.symbol, size: 7, opacity: 0.8, color: colours(modality) },
    })),
    { x: [], y: [], mode: "lines+markers", type: "scatter", hoverinfo: "skip",
      line: { color: css("--ink"), width: 2 },
      marker: { size: 14, symbol: "circle-open", color: css("--ink"), line: { width: 2 } } },
  ];
  const axis = (share, number) => ({
    title: { text: `PC ${number} (${Math.round(share * 100)}% of variance)`, font: { size: 12 } },
    showgrid: false, zeroline: false, showticklabels: false, ticks: "", linecolor: css("--line"), mirror: true,
  });
  const layout = () => ({
    margin: { l: 34, r: 8, t: 8, b: 42 }, showlegend: false, hovermode: "closest", hoverdistance: 14, dragmode: "pan",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--ink") },
    xaxis: axis(page.shares[0], 1), yaxis: { ...axis(page.shares[1], 2), scaleanchor: "x" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--ink") },
  });
  const config = {
    displaylogo: false, showSendToCloud: false, responsive: true, scrollZoom: true, showLink: false, plotlyServerURL: "", topojsonURL: "about:blank",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  const line = (tag, text, name) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const show = (index) => {
    const pair = page.pairs[index];
    const parts = [];
    if (pair.thumbnail) {
      const image = document.createElement("img");
      image.src = pair.thumbnail;
      image.alt = "thumbnail of the pair's image";
      parts.push(image);
    }
    const words = line("div", "", "words");
    if (pair.caption) words.append(line("p", pair.caption, "caption"));
    if (numModalities > 2) words.append(line("p", shown(index).map((one) => one.name).join(" + "), "identity"));
    words.append(line("p", `${numModalities > 2 ? "mean cosine" : "cosine"} ${pair.cosine.toFixed(3)} · ${pair.id}`, "identity"));
    const labels = Object.entries(pair.labels || {}).filter((entry) => entry[1]).map(([name, value]) => `${name}: ${value}`);
    if (labels.length) words.append(line("p", labels.join(" · "), "identity"));
    card.replaceChildren(...parts, words);
    const marked = { x: [], y: [] };
    for (const modality of shown(index)) {
      marked.x.push(modality.x[index]);
      marked.y.push(modality.y[index]);
    }
    Plotly.restyle(plot, { x: [marked.x], y: [marked.y] }, [numModalities + 1]);
  };

  const entry = (glyph, colour, text) => {
    const item = document.createElement("li");
    const mark = line("span", glyph);
    mark.style.color = colour;
    item.append(mark, ` ${text}`);
    return item;
  };
  const drawLegend = () => {
    const items = page.modalities.map((modality) => {
      const item = entry(modality.glyph, colourBy.value ? css("--ink") : css(modality.colour), modality.name);
      if (numModalities === 2) return item;
      const box = document.createElement("input");
      const label = document.createElement("label");
      box.type = "checkbox";
      box.checked = !hidden.has(modality.name);
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(modality.name);
        else hidden.add(modality.name);
        draw();
        legend.querySelectorAll("input")[page.modalities.indexOf(modality)].focus();
      });
      label.append(box, ...item.childNodes);
      item.replaceChildren(label);
      return item;
    });
    if (colourBy.value) {
      const values = counted(colourBy.value);
      values.slice(0, palette.length).forEach((value, index) => items.push(entry("●", css(palette[index]), value)));
      if (values.length > palette.length) {
        items.push(entry("●", css("--faint"), `${values.length - palette.length} more`));
      }
    }
    legend.replaceChildren(...items);
  };
  const draw = () => {
    drawLegend();
    Plotly.react(plot, traces(), layout(), config);
  };

  draw();
  const onPoint = (event) => {
    const point = event.points.find((one) => one.curveNumber >= 1 && one.curveNumber <= numModalities);
    if (point) show(point.pointNumber);
  };
  plot.on("plotly_hover", onPoint);
  plot.on("plotly_click", onPoint);
  joined.addEventListener("change", draw);
  colourBy.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
